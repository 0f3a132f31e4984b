"""What is wrong with most boxes of a file in COCO's format: its unit, its form or its pictures.

A few odd boxes harm nobody, and COCO has some; what most of them share is a mistake of an export.
"""

from collections.abc import Iterator

import numpy as np

from .coco_masks import is_number

__all__ = ["troubles_of_boxes"]

_FAR = 0.1  # of a side of the picture, that no box of an object reaches beyond it
_NEAR = 0.02
_ALIKE = 0.01  # of an area, in which it is the same


def troubles_of_boxes(entries: list[dict], sizes: dict) -> Iterator[tuple[dict, str]]:
    """Look at boxes that are four numbers each.

    Args:
        entries: annotations.
        sizes: height and width of pictures by their ids; entries of others are passed over.

    Yields:
        An annotation, and what is wrong with it and most of the others, and what to do.
    """
    entries = [entry for entry in entries if entry["image_id"] in sizes]
    if not entries:
        return
    boxes = np.array([entry["bbox"] for entry in entries], float)
    sides = np.array([sizes[entry["image_id"]] for entry in entries], float)[:, ::-1]
    start, extent = boxes[:, :2], boxes[:, 2:]  # x and y, width and height
    useless = (extent <= 0) | (start >= sides) | (start + extent <= 0)
    fractions = (boxes <= 1).all(1) & (sides > 4).all(1)
    far = (start + extent > (1 + _FAR) * sides) | (start < -_FAR * sides)
    if _are_most(which := useless.any(1)):
        what = (
            "have a bbox of no size, or outside of the picture, as most have; write x, y, width, "
            "height in pixels"
        )
    elif _are_most(which := fractions):
        what = (
            "have a bbox of fractions, as most have; multiply them by width and height of the "
            "picture"
        )
    elif (which := _corners(start, extent, sides, _areas(entries))) is not None:
        what = "have a bbox that is x1, y1, x2, y2; write x, y, width, height"
    elif _are_most(which := far.any(1)):
        what = (
            "have a bbox that reaches far beyond the picture, as most have; were the pictures "
            "scaled? Write x, y, width, height in pixels of the picture as it is"
        )
    else:
        return
    for i in np.flatnonzero(which):
        yield entries[i], what


def _corners(start, end, sides, areas) -> np.ndarray | None:
    """Which boxes show that all are two corners; None where they are not.

    Nearly all would have to be corners inside of the picture, and either many reach beyond it as
    they are, or the areas are those between the corners.
    """
    if not ((end >= start) & (end <= sides + 1)).all(1).mean() > 0.95:
        return None
    beyond = (start + end > (1 + _NEAR) * sides + 1).any(1)
    if beyond.all() or beyond.sum() >= max(2, len(beyond) / 4):
        return beyond
    between, own = (end - start).prod(1), end.prod(1)
    alike = (abs(areas - between) <= _ALIKE * areas) & (abs(areas - own) > _ALIKE * areas)
    return alike if _are_most(alike) else None


def _areas(entries: list[dict]) -> np.ndarray:
    areas = (entry.get("area") for entry in entries)
    return np.array([x if is_number(x) else np.nan for x in areas], float)


def _are_most(which: np.ndarray) -> bool:
    return which.mean() > 0.5
