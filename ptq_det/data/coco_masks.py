"""What is wrong with a mask in annotations of COCO's format."""

import math
from collections.abc import Iterator

import numpy as np

__all__ = [
    "UNFILLED",
    "are_numbers",
    "is_compressed",
    "is_number",
    "troubles_of_mask",
    "unfilled",
]

UNFILLED = "have an RLE mask whose counts do not fill its size; export them again"

_LARGEST = 1e12  # of numbers in annotations; beyond it they are no pixels
_LONGEST = 6  # characters of a number in compressed RLE
_BATCH = 1 << 15  # characters, whose arrays fit a cache


def troubles_of_mask(mask, polygons: bool, size: tuple[int, int] | None) -> Iterator[str]:
    """Look at the ``segmentation`` of an annotation, but for counts of compressed RLE.

    Args:
        mask: what is there.
        polygons: whether it has to be polygons.
        size: height and width of the picture, or None where they are not known.

    Yields:
        What is wrong, and what to do.
    """
    if isinstance(mask, dict):
        yield from _of_rle(mask, size)
        if polygons:
            yield "have RLE masks; set INPUT.MASK_FORMAT bitmask"
    elif not isinstance(mask, list) or not mask:
        yield "have no mask beside others that have one; add it, or take the object out"
    else:
        yield from _of_polygons(mask)


def _of_rle(mask: dict, size: tuple[int, int] | None) -> Iterator[str]:
    own, counts = mask.get("size"), mask.get("counts")
    if not isinstance(counts, (str, list)) or not _is_size(own):
        yield "have an RLE mask without size and counts; export them again"
    elif size is not None and tuple(own) != size:
        yield (
            "have an RLE mask of another size than their picture; its size is [height, width] of "
            "the picture, export them again"
        )
    elif isinstance(counts, list):
        whole = set(map(type, counts)) == {int} and min(counts) >= 0
        if not whole or sum(counts) != own[0] * own[1]:
            yield UNFILLED


def is_compressed(mask) -> bool:
    """Whether a mask is RLE whose counts are a text, for :func:`unfilled`."""
    return (
        isinstance(mask, dict)
        and isinstance(mask.get("counts"), str)
        and _is_size(mask.get("size"))
    )


def unfilled(masks: list[dict]) -> list[int]:
    """Places of those masks of compressed RLE whose counts are not valid or do not fill them.

    Many are looked at in one go: one by one they would take minutes.
    """
    found, batch, characters = [], [], 0
    for place, mask in enumerate(masks):
        text = mask["counts"]
        if not text or not text.isascii():
            found.append(place)
            continue
        batch.append(place)
        characters += len(text)
        if characters > _BATCH:
            found += _unfilled_of_batch(masks, batch)
            batch, characters = [], 0
    if batch:
        found += _unfilled_of_batch(masks, batch)
    return sorted(found)


def _unfilled_of_batch(masks: list[dict], places: list[int]) -> list[int]:
    """Decode texts that are not empty.

    A number is a few characters of six bits (from the character 0 on), the lowest first: five of
    it, and one that tells whether it goes on. From the fourth number on they are differences from
    the number before the last.
    """
    texts = [masks[place]["counts"] for place in places]
    pixels = np.array([masks[place]["size"][0] * masks[place]["size"][1] for place in places])
    codes = np.frombuffer("".join(texts).encode(), np.uint8).astype(np.int64) - ord("0")
    lengths = np.array([len(text) for text in texts])
    begins = np.cumsum(lengths) - lengths  # of a text
    bad = np.add.reduceat((codes < 0) | (codes > 63), begins, dtype=np.int64) > 0
    is_last = codes & 32 == 0
    ends_of_texts = begins + lengths - 1
    bad |= ~is_last[ends_of_texts]
    is_last[ends_of_texts] = True
    counts = np.add.reduceat(is_last, begins, dtype=np.int64)  # numbers of a text
    ends = np.flatnonzero(is_last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1  # of a number
    first = np.cumsum(counts) - counts  # number of a text
    bad |= np.maximum.reduceat(sizes, first) > _LONGEST
    shifts = 5 * np.minimum(np.arange(len(codes)) - np.repeat(starts, sizes), _LONGEST)
    numbers = np.add.reduceat((codes & 31) << shifts, starts)
    numbers -= np.where(codes[ends] & 16, 1 << (5 * np.minimum(sizes, _LONGEST)), 0)  # the sign
    place = np.arange(len(numbers)) - np.repeat(first, counts)
    runs = np.where(place == 0, numbers, 0)
    for which in (place % 2 == 1, (place % 2 == 0) & (place > 0)):
        sums = np.cumsum(np.where(which, numbers, 0))
        runs = np.where(which, sums - np.repeat(sums[first], counts), runs)
    bad |= np.minimum.reduceat(runs, first) < 0
    bad |= np.add.reduceat(runs, first) != pixels
    return [places[i] for i in np.flatnonzero(bad)]


def _of_polygons(mask: list) -> Iterator[str]:
    if is_number(mask[0]):
        yield "have a polygon that is not in a list of polygons; write [[x, y, …]] for [x, y, …]"
        return
    for polygon in mask:
        if not isinstance(polygon, list) or len(polygon) % 2 or not are_numbers(polygon):
            yield "have a polygon that is no list of x, y, x, y, …; export them again"
            return
        if len(polygon) < 6:
            yield "have a polygon of fewer than three points; take it out"
            return


def _is_size(size) -> bool:
    return (
        isinstance(size, list)
        and len(size) == 2
        and all(type(side) is int and 0 < side < _LARGEST for side in size)
    )


def is_number(value) -> bool:
    """Whether a value of a JSON file is a number that can be one of pixels."""
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST


def are_numbers(values: list) -> bool:
    """Whether all of them are, found fast."""
    if not values:
        return True
    if not set(map(type, values)) <= {int, float}:
        return False
    least, most = min(values), max(values)
    return least > -_LARGEST and most < _LARGEST and not math.isnan(sum(values))
