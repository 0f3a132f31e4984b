"""Configs of Detectron2's model zoo, found where it is installed.

``detectron2.model_zoo`` has the same, but needs pkg_resources, which setuptools 81 or newer lack.
"""

from pathlib import Path

import detectron2
from detectron2.config import LazyConfig
from omegaconf import DictConfig

from ..errors import InputError

__all__ = ["zoo_config", "zoo_file"]

_FOLDER = Path(detectron2.__file__).parent / "model_zoo/configs"


def zoo_file(name: str) -> Path | None:
    """The file of a config of the zoo, ``COCO-Detection/retinanet_R_50_FPN_1x.yaml``; None where
    the zoo has none of that name."""
    file = _FOLDER / name
    return file if file.is_file() else None


def zoo_config(name: str) -> DictConfig:
    """A lazy config of the zoo, or a part of one: ``common/train.py``.

    Raises:
        InputError: the installed Detectron2 has no such lazy config.
    """
    file = zoo_file(name)
    if file is None or file.suffix != ".py":
        raise InputError(f"the zoo of the installed Detectron2 has no lazy config {name!r}")
    return LazyConfig.load(str(file))
