"""What COCO's evaluation reads of annotations and other tools do not write."""

import contextlib
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

import pycocotools.mask as mask_utils

if TYPE_CHECKING:
    from pycocotools.coco import COCO

__all__ = ["complete", "fill_in"]


def complete(truth: "COCO") -> None:
    """Make annotations that were read fit for COCO's evaluation, in place.

    They get what they lack (:func:`fill_in`). Where an id is not a whole number from 1 on, they
    are numbered anew: COCO's evaluation writes the id of the object that a detection has matched,
    and takes 0 for no match.
    """
    annotations = truth.dataset.get("annotations", [])
    fill_in(annotations)
    if all(type(entry["id"]) is int and entry["id"] > 0 for entry in annotations):
        return
    for number, entry in enumerate(annotations, 1):
        entry["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        truth.createIndex()


def fill_in(annotations: Iterable[dict]) -> None:
    """Give annotations of COCO's format what they lack, in place.

    ``iscrowd``: no crowd. ``area``, in pixels: that of the polygons or the RLE, as COCO's own is,
    or else of the box. Where others have ``keypoints``: none of them seen. ``num_keypoints``: how
    many of the keypoints are labelled.
    """
    annotations = list(annotations)
    length = max((len(entry.get("keypoints") or ()) for entry in annotations), default=0)
    for entry in annotations:
        if entry.get("iscrowd") is None:
            entry["iscrowd"] = 0
        if entry.get("area") is None:
            entry["area"] = _area(entry)
        if length:
            _fill_in_keypoints(entry, length)


def _fill_in_keypoints(entry: dict, length: int) -> None:
    points = entry.get("keypoints") or []
    if not points or (entry["iscrowd"] and len(points) != length):
        entry["keypoints"], entry["num_keypoints"] = [0] * length, 0
    if entry.get("num_keypoints") is None:
        entry["num_keypoints"] = sum(visibility > 0 for visibility in entry["keypoints"][2::3])


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
