"""What COCO's evaluation reads of annotations and other tools do not write."""

from collections.abc import Iterable

import pycocotools.mask as mask_utils

__all__ = ["fill_in"]


def fill_in(annotations: Iterable[dict]) -> None:
    """Give annotations of COCO's format ``iscrowd`` and ``area``, in place, where they lack them.

    No crowd; the area, in pixels, is that of the polygons or the RLE, as COCO's own is, or else of
    the box.
    """
    for annotation in annotations:
        if annotation.get("iscrowd") is None:
            annotation["iscrowd"] = 0
        if annotation.get("area") is None:
            annotation["area"] = _area(annotation)


def _area(annotation: dict) -> float:
    mask = annotation.get("segmentation")
    if isinstance(mask, dict):
        if isinstance(mask["counts"], list):  # runs of zeros and ones in turn
            return float(sum(mask["counts"][1::2]))
        return float(mask_utils.area(mask))
    if mask:
        return sum(map(_polygon_area, mask))
    return float(annotation["bbox"][2] * annotation["bbox"][3])


def _polygon_area(polygon: list) -> float:
    """By the shoelace formula, from x, y, x, y, …"""
    xs, ys = polygon[0::2], polygon[1::2]
    after = [*xs[1:], xs[0]], [*ys[1:], ys[0]]
    return abs(sum(x * v - u * y for x, y, u, v in zip(xs, ys, *after, strict=True))) / 2
