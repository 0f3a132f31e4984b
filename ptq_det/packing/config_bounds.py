"""Bounds of what a packed file's config may ask for, beyond the kind of each value."""

import re
from collections.abc import Iterator
from math import prod

from detectron2.config import CfgNode

__all__ = ["check_bounds"]

_SHARE = re.compile(r"(SCORE|NMS|IOU|OVERLAP|CONFIDENCE)_THRESH")  # keys of numbers in [0, 1]
_FORMATS = ("BGR", "RGB", "L", "YUV-BT.601")
_LIST = 64  # entries
_ANCHORS = 1_000  # of a place
_PIXELS = 1 << 14  # a side that pictures may be scaled to
_TOP = 100_000  # boxes that are kept
_RESOLUTION = 64  # of pooled features
_SAMPLES = 16  # of a pooled feature, a side


def check_bounds(cfg: CfgNode) -> None:
    """Refuse a model whose building or running would take what no detector needs.

    Args:
        cfg: with what a file says merged in.

    Raises:
        ValueError: a value is beyond its bound; the message has key and value.
    """
    for name, value in _values(cfg.MODEL, "MODEL"):
        _check(name, value)
    model = cfg.MODEL
    generator = model.ANCHOR_GENERATOR
    lists = (generator.SIZES, generator.ASPECT_RATIOS, generator.ANGLES)
    anchors = prod(max(map(_length, each), default=1) for each in lists)
    _require("MODEL.ANCHOR_GENERATOR", f"{anchors} anchors a place", anchors <= _ANCHORS)
    rotated = model.PROPOSAL_GENERATOR.NAME == "RRPN"
    alike = rotated == (generator.NAME == "RotatedAnchorGenerator")
    alike = alike and (not rotated or model.ROI_HEADS.NAME == "RROIHeads")
    _require("MODEL.PROPOSAL_GENERATOR.NAME", model.PROPOSAL_GENERATOR.NAME, alike)
    mean, std = model.PIXEL_MEAN, model.PIXEL_STD
    _require("MODEL.PIXEL_MEAN", mean, 0 < len(mean) <= 4 and all(map(_is_number, mean)))
    fits = len(std) == len(mean) and all(_is_number(each) and each > 0 for each in std)
    _require("MODEL.PIXEL_STD", std, fits)
    for key, least in (("MIN_SIZE_TEST", 0), ("MAX_SIZE_TEST", 1)):
        value = cfg.INPUT[key]
        _require(f"INPUT.{key}", value, _is_number(value) and least <= value <= _PIXELS)
    _require("INPUT.FORMAT", cfg.INPUT.FORMAT, cfg.INPUT.FORMAT in _FORMATS)
    most = cfg.TEST.DETECTIONS_PER_IMAGE
    _require("TEST.DETECTIONS_PER_IMAGE", most, -1 <= most <= _TOP)


def _check(name: str, value) -> None:
    """Hold a value against the bound that the words of its key name."""
    if isinstance(value, (list, tuple)):
        _require(name, f"{len(value)} entries", len(value) <= _LIST)
        for each in value:
            if isinstance(each, (list, tuple)):
                _check(name, each)
    if not _is_number(value):
        return
    if _SHARE.search(name):
        _require(name, value, 0 <= value <= 1)
    elif "_TOPK" in name:
        _require(name, value, 1 <= value <= _TOP)
    elif name.endswith("POOLER_RESOLUTION"):
        _require(name, value, 1 <= value <= _RESOLUTION)
    elif name.endswith("POOLER_SAMPLING_RATIO"):
        _require(name, value, 0 <= value <= _SAMPLES)


def _values(node: CfgNode, name: str) -> Iterator[tuple[str, object]]:
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _values(value, f"{name}.{key}")
        else:
            yield f"{name}.{key}", value


def _length(value) -> int:
    return len(value) if isinstance(value, (list, tuple)) else 1


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _require(name: str, value, condition: bool) -> None:
    if not condition:
        raise ValueError(f"{name} is {str(value)[:80]}")
