"""How the tools end where a user made a mistake."""

import sys
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import InputError

__all__ = ["positive", "told_in_one_line"]


def positive(text: str) -> int:
    """A whole number above 0, as argparse's ``type``."""
    number = int(text) if text.isascii() and text.isdigit() else 0
    if number < 1:
        raise ArgumentTypeError(f"{text!r} is no whole number above 0")
    return number


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Turn an error that a user can cause into ``error: …`` and exit status 2."""
    try:
        yield
    except (InputError, OSError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        raise SystemExit(2) from None
