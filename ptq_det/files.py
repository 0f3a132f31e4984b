"""Files that appear whole or not at all, and the unit that their sizes are given in."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["MIB", "replacing"]

MIB = 1 << 20  # bytes


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a name beside ``path`` to write to; move it there when the block ends without an error.

    A full disk or a kill leaves the old file, or none. Of a link, the file that it points to is
    replaced. The scratch file is nobody else's, and has the permissions that a new file would have.
    """
    path = Path(os.path.realpath(path))
    handle, name = tempfile.mkstemp(prefix="tmp_", suffix=f"_{path.name}", dir=path.parent)
    os.close(handle)
    scratch = Path(name)
    try:
        scratch.chmod(0o666 & ~_umask())
        yield scratch
        _flush(scratch)
        scratch.replace(path)
        with suppress(OSError):  # not every system opens folders
            _flush(path.parent)
    finally:
        scratch.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
