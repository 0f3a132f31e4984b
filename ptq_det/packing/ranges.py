"""Ranges of activations as the header of a packed file has them."""

import math
import os

from .container import PackedFileError

__all__ = ["checked_ranges"]


def checked_ranges(path: str | os.PathLike, ranges) -> dict[str, tuple[float, float]]:
    """Pairs of least and largest value by name, from JSON.

    Raises:
        PackedFileError: they are anything else.
    """
    fits = isinstance(ranges, dict) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(bound) in (int, float) and math.isfinite(bound) for bound in pair)
        and pair[0] <= pair[1]
        for pair in ranges.values()
    )
    if not fits:
        raise PackedFileError(path, "its ranges of activations are no pairs of numbers")
    return {name: tuple(map(float, pair)) for name, pair in ranges.items()}
