"""Files that appear whole or not at all, and the unit that their sizes are given in."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["MIB", "replacing"]

MIB = 1 << 20  # bytes


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a name beside ``path`` to write to; move it there when the block ends without an error.

    A full disk or a kill leaves the old file, or none.
    """
    path = Path(path)
    scratch = path.with_name(f"tmp_{os.getpid()}_{path.name}")
    try:
        yield scratch
        with open(scratch, "rb") as file:
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
