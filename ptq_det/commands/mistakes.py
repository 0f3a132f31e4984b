"""How the tools end where a user made a mistake."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InputError

__all__ = ["told_in_one_line"]


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Turn an error that a user can cause into ``error: …`` and exit status 2."""
    try:
        yield
    except (InputError, OSError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        raise SystemExit(2) from None
