"""Bounds of what a packed file's config may ask for, beyond the kind of each value."""

import math
import re
from collections.abc import Iterator
from functools import cache

from detectron2.config import CfgNode, get_cfg

__all__ = ["check_bounds", "check_sizes"]

# Bounds of numbers by the end of their key's full name; True where they have to be whole.
_BOUNDS = [
    (re.compile(rf"({pattern})$"), least, most, whole)
    for pattern, least, most, whole in (
        (r"(SCORE|NMS|IOU|OVERLAP|CONFIDENCE|CENTER)_THRESH(OLDS?)?(_TEST|_TRAIN)?", 0, 1, False),
        (r"\.IOUS|_FRACTION", 0, 1, False),
        (r"BBOX_REG_WEIGHTS", 1e-6, 1e6, False),
        (r"(PRE|POST)_NMS_TOPK_(TEST|TRAIN)|TOPK_CANDIDATES_TEST", 1, 50_000, True),
        (r"TOP_?K(_\w+)?", 0, 50_000, False),
        (r"TEST\.DETECTIONS_PER_IMAGE", -1, 10_000, True),  # -1: all
        (r"NUM_(CONVS?|FCS?|LAYERS|BLOCKS|STAGES)", 0, 128, True),
        (r"POOLER_RESOLUTION", 1, 64, True),
        (r"POOLER_SAMPLING_RATIO", -1, 16, True),
        (r"COMMON_STRIDE", 1, 64, True),
        (r"SUBDIVISION_STEPS", 0, 8, True),  # each doubles the side of a mask
        (r"NUM_POINTS", 1, 1 << 16, True),
        (r"NUM_KEYPOINTS", 1, 1 << 12, True),
        (r"INPUT\.MIN_SIZE_TEST", 0, 1 << 17, False),  # 0: pictures keep their size
        (r"INPUT\.MAX_SIZE_TEST", 1, 1 << 17, False),
        (r"PIXEL_STD", 1e-6, 1e6, False),
    )
]
_CHOICES = {
    "INPUT.FORMAT": {
        *("BGR", "YUV-BT.601"),  # Detectron2's own; the others are modes of Pillow
        *("RGB", "L", "RGBA", "LA", "CMYK", "YCbCr", "HSV"),
    },
    "INPUT.MASK_FORMAT": {"polygon", "bitmask"},
}
_ANCHORS = 1_000  # at a place of a feature map
_ENTRIES = 64  # of a list of Detectron2's own keys
_CHANNELS = 1_024  # of pictures
_PIXELS = 1 << 27  # of a scaled picture
_MOST_ENTRIES = 20_000  # of a list of a project's key


def check_bounds(value, name: str) -> None:
    """Hold a value against the bounds that its key has, also where it is the reader's own."""
    for pattern, least, most, whole in _BOUNDS:
        if pattern.search(name):
            kinds = int if whole else (int, float)
            fits = all(isinstance(x, kinds) and least <= x <= most for x in _numbers(value))
            _require(name, value, fits)
            break
    if name in _CHOICES:
        _require(name, value, value in _CHOICES[name])
    most = _CHANNELS if ".PIXEL_" in name else _ENTRIES if name in _own_keys() else _MOST_ENTRIES
    for entries in _lists(value):
        _require(name, f"{len(entries)} entries", len(entries) <= most)
        if name.endswith("_FEATURES"):
            _require(name, value, len(set(map(str, entries))) == len(entries))


def check_sizes(cfg: CfgNode) -> None:
    """Bounds of what several values ask for together."""
    generator, model, sizes = cfg.MODEL.ANCHOR_GENERATOR, cfg.MODEL, cfg.INPUT
    anchors = math.prod(
        _entries(each) for each in (generator.SIZES, generator.ASPECT_RATIOS, generator.ANGLES)
    )
    _require("MODEL.ANCHOR_GENERATOR", f"{anchors} anchors a place", anchors <= _ANCHORS)
    channels = {len(list(_numbers(each))) for each in (model.PIXEL_MEAN, model.PIXEL_STD)}
    fits = channels == {len(model.PIXEL_MEAN)} and 0 not in channels
    _require("MODEL.PIXEL_MEAN", f"{model.PIXEL_MEAN} with PIXEL_STD {model.PIXEL_STD}", fits)
    pixels = sizes.MIN_SIZE_TEST * sizes.MAX_SIZE_TEST
    _require("INPUT.MIN_SIZE_TEST", f"{pixels} pixels with MAX_SIZE_TEST", pixels <= _PIXELS)


def _entries(values) -> int:
    """Most entries of a level; a plain list counts for all levels, as Detectron2 has it."""
    if values and isinstance(values[0], (list, tuple)):
        return max(len(each) if isinstance(each, (list, tuple)) else 1 for each in values)
    return len(values)


def _numbers(value) -> Iterator[int | float]:
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _numbers(each)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def _lists(value) -> Iterator[list | tuple]:
    if isinstance(value, (list, tuple)):
        yield value
        for each in value:
            yield from _lists(each)


@cache
def _own_keys() -> frozenset[str]:
    """Full names of the keys that Detectron2 itself has below MODEL."""

    def names(node: CfgNode, name: str) -> Iterator[str]:
        for key, value in node.items():
            full = f"{name}.{key}"
            yield from names(value, full) if isinstance(value, CfgNode) else (full,)

    return frozenset(names(get_cfg().MODEL, "MODEL"))


def _require(name: str, value, condition: bool) -> None:
    if not condition:
        raise ValueError(f"{name} is {str(value)[:80]}")
