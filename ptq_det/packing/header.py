"""What the header of a packed file says beside its layers: config, classes, network, ranges."""

import json
import math
import os

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from .architecture import Architecture
from .container import PackedFileError

__all__ = ["architecture_of", "checked_ranges", "class_names", "config_text"]


def config_text(cfg: CfgNode) -> str:
    """The config without what tells of the place where it was packed."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = ""
    cfg.OUTPUT_DIR = "./output"
    return cfg.dump()


def class_names(cfg: CfgNode) -> list[str]:
    """Names of the classes of the config's data sets, or none where nothing tells them."""
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        metadata = MetadataCatalog.get(name)
        if name in DatasetCatalog and not metadata.get("thing_classes"):
            try:
                DatasetCatalog.get(name)  # COCO files tell their classes when they are read
            except OSError:  # the data are elsewhere
                continue
        if metadata.get("thing_classes"):
            return list(metadata.thing_classes)
    return []


def architecture_of(path: str | os.PathLike, texts: dict[str, str]) -> Architecture:
    """What network a file is for, from the texts of its header.

    Raises:
        PackedFileError: it is not known here.
    """
    try:
        return Architecture.from_json(json.loads(texts["architecture"]))
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        raise PackedFileError(path, str(error)) from error


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
