"""Reads the config that a command names."""

import os

from detectron2.config import CfgNode, get_cfg
from detectron2.utils.file_io import PathManager

from ..config import MERGE_ERRORS, add_ternary_config
from ..errors import InputError

__all__ = ["find_config_file", "read_config"]


def find_config_file(path: str) -> str:
    """The path of a config on disk, or of one of Detectron2's model zoo by its name there.

    Raises:
        InputError: it is in neither place.
    """
    if not path:
        raise InputError("no config: give --config-file, e.g. configs/mask_rcnn_R50_ptq.yaml")
    if PathManager.isfile(path):
        return path
    from detectron2 import model_zoo  # which needs pkg_resources, that newer setuptools lack

    try:
        return model_zoo.get_config_file(path)
    except RuntimeError:  # what the zoo raises for a name it does not have
        raise InputError(
            f"config file {path!r} not found (from folder {os.getcwd()!r}, or in Detectron2's zoo)"
        ) from None


def read_config(path: str, overrides: list[str]) -> CfgNode:
    """Read a config with the node ``TERNARY``.

    Args:
        path: as :func:`find_config_file` has it.
        overrides: keys and values that override it.

    Raises:
        InputError: there is no such config, or a key or value is wrong.
    """
    path = find_config_file(path)
    cfg = get_cfg()
    add_ternary_config(cfg)
    try:
        cfg.merge_from_file(path)
        cfg.merge_from_list(overrides)
    except MERGE_ERRORS as error:
        raise InputError(f"{path} or an override: {error}") from error
    return cfg
