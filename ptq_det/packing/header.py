"""What the header of a packed file says beside layers and config: network, classes, ranges."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import nn

from .architecture import Architecture
from .container import PackedFileError

__all__ = ["CLASS_KEYS", "Header", "class_names", "names_in", "number_in", "number_of_classes"]

_LARGEST = 1e30  # of an activation: differences and scales stay finite in float32

# Node of MODEL that has NUM_CLASSES, by MODEL.META_ARCHITECTURE.
CLASS_KEYS = {
    "GeneralizedRCNN": "ROI_HEADS",
    "PanopticFPN": "ROI_HEADS",
    "RetinaNet": "RETINANET",
}


def class_names(cfg: CfgNode) -> list[str]:
    """Names of the classes that the model was trained on, in their order.

    Those of ``DATASETS.TRAIN`` alone: a test set may number them otherwise, or lack some. None
    where nothing tells them, or where they are not as many as the model has.
    """
    return names_in(cfg.DATASETS.TRAIN, number_of_classes(cfg))


def names_in(datasets: Iterable[str], expected: int | None) -> list[str]:
    """The names that the first data set has which tells as many as a model has classes."""
    for name in datasets:
        metadata = MetadataCatalog.get(name)
        if name in DatasetCatalog and not metadata.get("thing_classes"):
            try:
                DatasetCatalog.get(name)  # COCO files tell their classes when they are read
            except OSError:  # the data are elsewhere
                continue
        names = metadata.get("thing_classes")
        if names and (expected is None or len(names) == expected):
            return list(names)
    return []


def number_of_classes(cfg: CfgNode) -> int | None:
    """How many classes a model of a config has; None where the config does not tell."""
    key = CLASS_KEYS.get(cfg.MODEL.META_ARCHITECTURE)
    return None if key is None else cfg.MODEL[key].NUM_CLASSES


def number_in(model: nn.Module) -> int | None:
    """How many classes a detector has, by the attribute that Detectron2's have; None for others."""
    number = getattr(getattr(model, "roi_heads", model), "num_classes", None)
    return number if isinstance(number, int) else None


@dataclass(frozen=True)
class Header:
    """The texts of a header, checked.

    Attributes:
        architecture: what network the file is for.
        classes: names of the classes, or none.
        layers: fields of each layer by name, of which only the kinds of the fields' values are
            known yet.
        ranges: least and largest value of activations by name.
        config: text of the config.
    """

    architecture: Architecture
    classes: list[str]
    layers: dict[str, dict]
    ranges: dict[str, tuple[float, float]]
    config: str

    @classmethod
    def of(cls, texts: dict[str, str], path: str) -> "Header":
        """Read the texts.

        Raises:
            PackedFileError: one is missing, no JSON, or says something else than it should.
        """
        values = {}
        for key in ("architecture", "classes", "layers", "ranges"):
            text = texts.get(key, "{}" if key == "ranges" else None)
            if text is None:
                raise PackedFileError(path, f"its header lacks {key!r}")
            try:
                values[key] = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise PackedFileError(path, f"{key} is no JSON ({error})") from error
        if "config" not in texts:
            raise PackedFileError(path, "its header lacks 'config'")
        try:
            architecture = Architecture.from_json(values["architecture"])
        except ValueError as error:
            raise PackedFileError(path, str(error)) from error
        classes, layers = values["classes"], values["layers"]
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise PackedFileError(path, "its classes are no list of names")
        if not isinstance(layers, dict) or not all(isinstance(x, dict) for x in layers.values()):
            raise PackedFileError(path, "its layers are no fields by name")
        if not all(map(_can_be_written, classes)):
            raise PackedFileError(path, "its classes have a name that is no text")
        ranges = _ranges(values["ranges"], path)
        return cls(architecture, classes, layers, ranges, texts["config"])


def _can_be_written(name: str) -> bool:
    """Whether it is whole; JSON may have one half of a character's two."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _ranges(ranges, path: str) -> dict[str, tuple[float, float]]:
    fits = isinstance(ranges, dict) and all(
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(bound) in (int, float) and abs(bound) <= _LARGEST for bound in pair)
        and pair[0] <= pair[1]
        for pair in ranges.values()
    )
    if not fits:
        raise PackedFileError(path, "its ranges of activations are no pairs of numbers")
    return {name: tuple(map(float, pair)) for name, pair in ranges.items()}
