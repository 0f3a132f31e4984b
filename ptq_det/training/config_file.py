"""Reads the config that a command names."""

import os

from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

from ..config import MERGE_ERRORS, add_ternary_config
from ..data.weights import CONFIGS_FOLDER
from ..data.zoo import zoo_file
from ..errors import InputError
from ..plugins import base_config

__all__ = ["find_config_file", "read_config"]


def find_config_file(path: str) -> str:
    """The path of a config: a file, else one of this package or of Detectron2's model zoo by name.

    Args:
        path: a file, an address of ``PathManager``, or a name below ``configs/``, with or without
            that word: ``mask_rcnn_R50_ptq.yaml``, ``COCO-Detection/retinanet_R_50_FPN_1x.yaml``.

    Raises:
        InputError: it is in none of these places.
    """
    if not path:
        raise InputError("no config: give --config-file, e.g. mask_rcnn_R50_ptq.yaml")
    if PathManager.isfile(path):
        return path
    name = path.removeprefix("configs/")
    own = CONFIGS_FOLDER / name
    file = own if own.is_file() else zoo_file(name)
    if file is not None:
        return str(file)
    raise InputError(
        f"config file {path!r} not found (from folder {os.getcwd()!r}, among those of ptq_det, or "
        "in Detectron2's zoo)"
    )


def read_config(path: str, overrides: list[str]) -> CfgNode:
    """Read a config with the node ``TERNARY`` and the keys of plugins.

    Args:
        path: as :func:`find_config_file` has it.
        overrides: keys and values that override it.

    Raises:
        InputError: there is no such config, or a key or value is wrong.
    """
    path = find_config_file(path)
    cfg = base_config()
    add_ternary_config(cfg)
    try:
        cfg.merge_from_file(path)
        cfg.merge_from_list(overrides)
    except MERGE_ERRORS as error:
        raise InputError(f"{path} or an override: {error}") from error
    return cfg
