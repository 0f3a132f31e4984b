"""What would fail or mislead hours later, found in a config before any work is done."""

import importlib.util
import os
import tempfile
from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

from ..data.loader import check_batch
from ..errors import InputError
from ..packing.container import PackedFileError
from ..packing.model_config import config_text, merge_config
from ..settings import TernarySettings
from .data_checks import (
    check_classes,
    check_data,
    check_datasets,
    check_evaluators,
    check_keypoints,
    datasets_of,
)
from .input_checks import (
    check_augmentation,
    check_expected_results,
    check_proposals,
    check_sizes,
)
from .setting_checks import check_settings
from .stuff_checks import check_stuff_classes

__all__ = [
    "check_augmentation",
    "check_crop",
    "check_device",
    "check_output",
    "check_packed",
    "check_teacher",
    "check_weights",
    "check_writable",
    "preflight",
]


def preflight(
    cfg: CfgNode,
    training: bool = True,
    processes: int = 1,
    resume: bool = False,
    decode: bool = False,
) -> None:
    """Check everything that a config names.

    Args:
        cfg: full config.
        training: whether it is trained, or evaluated alone.
        processes: number of them that a step's pictures are shared out to.
        resume: whether a checkpoint of the output folder is gone on from, not ``MODEL.WEIGHTS``.
        decode: read the pixels of all pictures too.

    Raises:
        InputError: with all that was found, and what to do.
    """
    found: list[str] = []

    def passes(check: Callable, *args) -> bool:
        try:
            check(*args)
        except InputError as error:
            found.append(str(error))
            return False
        return True

    distils = passes(TernarySettings.from_cfg, cfg) and training and _distils(cfg)
    sound = passes(check_settings, cfg, training)
    passes(check_device, cfg)
    sound &= passes(check_sizes, cfg, training)
    passes(check_augmentation, cfg)
    passes(check_proposals, cfg, training)
    passes(check_expected_results, cfg, training)
    if training:
        passes(check_batch, cfg, processes)
        passes(check_output, cfg)
        if sound:  # or it would be said twice
            passes(check_packed, cfg)
        passes(check_crop, cfg)
    if distils:
        passes(check_teacher, cfg)
    elif not resume:
        passes(check_weights, cfg.MODEL.WEIGHTS)
    there = [passes(check_datasets, [name]) for name in datasets_of(cfg, training)]
    if all(there):
        passes(check_evaluators, cfg)
        readable = passes(check_data, cfg, training, decode)
        passes(check_classes, cfg, training, readable)
        passes(check_stuff_classes, cfg, training)
        passes(check_keypoints, cfg, training, readable)
    if len(found) == 1:
        raise InputError(found[0])
    if found:
        lines = "".join(f"\n{i}. {what}" for i, what in enumerate(found, 1))
        raise InputError(f"{len(found)} things would fail or mislead:{lines}")


def _distils(cfg: CfgNode) -> bool:
    return TernarySettings.is_ternary_config(cfg) and cfg.TERNARY.DISTILLATION > 0


def check_crop(cfg: CfgNode) -> None:
    """Raise :class:`InputError` if cropping polygons lacks its library."""
    polygons = cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT == "polygon"
    if cfg.INPUT.CROP.ENABLED and polygons and importlib.util.find_spec("shapely") is None:
        raise InputError(
            "INPUT.CROP.ENABLED cuts polygons by the library shapely, which is not installed: "
            "pip install shapely, or set INPUT.MASK_FORMAT bitmask"
        )


def check_device(cfg: CfgNode) -> None:
    """Raise :class:`InputError` if ``MODEL.DEVICE`` is not there, or has no mixed precision."""
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        raise InputError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but PyTorch finds no GPU; "
            "set MODEL.DEVICE cpu to run on the processor"
        )
    if cfg.SOLVER.AMP.ENABLED and not on_gpu and cfg.MODEL.DEVICE != "cpu":
        raise InputError(
            f"SOLVER.AMP.ENABLED needs a GPU or CPU, but MODEL.DEVICE is {cfg.MODEL.DEVICE!r}; "
            "set SOLVER.AMP.ENABLED False"
        )


def check_output(cfg: CfgNode) -> None:
    """Raise :class:`InputError` if there is nothing to train, or nowhere to write it to."""
    if cfg.SOLVER.MAX_ITER < 1:
        raise InputError(
            f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}, so nothing is trained; set it above 0, or "
            "evaluate with --eval-only"
        )
    check_writable(cfg.OUTPUT_DIR)


def check_writable(folder: str, key: str = "OUTPUT_DIR") -> None:
    """Raise :class:`InputError` if the folder of a key cannot be written to; it is made."""
    if "://" in folder:
        return
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{key} {folder!r} cannot be written to ({error}); set it to a folder that can"
        ) from error


def check_packed(cfg: CfgNode) -> None:
    """Raise :class:`InputError` if the file that a training ends with could not be read."""
    if not cfg.TERNARY.ENABLED:
        return
    try:
        merge_config(config_text(cfg), cfg.clone(), "the packed file of this config")
    except PackedFileError as error:
        raise InputError(f"{error}; docs/file_format.md has the bounds") from error


def check_teacher(cfg: CfgNode) -> None:
    """Raise :class:`InputError` if ``MODEL.WEIGHTS`` names no file to learn from, which a resumed
    training needs too."""
    if not cfg.MODEL.WEIGHTS:
        raise InputError(
            "TERNARY.DISTILLATION needs a float model in MODEL.WEIGHTS to learn from, and it is "
            "empty; give one, or set TERNARY.DISTILLATION 0.0"
        )
    check_weights(cfg.MODEL.WEIGHTS)


def check_weights(path: str, key: str = "MODEL.WEIGHTS") -> None:
    """Raise :class:`InputError` if the weights of a key cannot be had; download them from a URL."""
    if not path:
        return
    try:
        local = PathManager.get_local_path(path.split("?")[0])
    except Exception as error:  # iopath lets through whatever the network library raises
        raise InputError(
            f"{key} {path!r} could not be downloaded ({error}). Check the network and the address, "
            f"or download the file elsewhere and set {key} to it."
        ) from error
    if not os.path.isfile(local):
        raise InputError(
            f"{key} {path!r} not found (from folder {os.getcwd()!r}). Set {key} to a file that "
            "exists; the last words of the command override the config."
        )
