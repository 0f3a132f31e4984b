"""Test-time augmentation and the packed models that are evaluated."""

import dataclasses
import os
from collections import OrderedDict

from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from torch import nn

from ..errors import InputError
from ..packing.container import PackedFileError, is_packed
from ..packing.packed_model import PackedModel
from ..settings import TernarySettings
from .evaluators import build_evaluator
from .loading import build_packed

__all__ = [
    "build_for_evaluation",
    "evaluate_with_augmentation",
    "load_for_evaluation",
    "packed_weights",
]


def evaluate_with_augmentation(trainer_class, cfg: CfgNode, model) -> OrderedDict:
    """Evaluate with test-time augmentation (``TEST.AUG``); every result's name ends in ``_TTA``."""
    from detectron2.modeling import GeneralizedRCNNWithTTA

    folder = os.path.join(cfg.OUTPUT_DIR, "inference_TTA")
    evaluators = [build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
    results = trainer_class.test(cfg, GeneralizedRCNNWithTTA(cfg, model), evaluators)
    return OrderedDict((f"{name}_TTA", value) for name, value in results.items())


def packed_weights(cfg: CfgNode | TernarySettings, weights: str) -> str | None:
    """The packed model that weights are, or None where they are others.

    Args:
        cfg: full config, or settings.
        weights: a file that is there, with or without what Detectron2 has behind a ``?``; or empty.

    Raises:
        InputError: they are others, but ``TERNARY.ENGINE`` names what runs packed models alone.
    """
    path = weights.split("?")[0]
    if path and is_packed(PathManager.get_local_path(path)):
        return path
    engine = TernarySettings.of(cfg).engine
    if engine:
        raise InputError(
            f"TERNARY.ENGINE {engine} runs packed files, and the weights are {weights!r}; give the "
            "model_final.safetensors that training ends with, or what tools/pack.py writes"
        )
    return None


def load_for_evaluation(cfg: CfgNode, path: str, engine: str | None = None) -> nn.Module:
    """A packed model as ``cfg`` has it, thresholds included.

    Args:
        cfg: full config; its ``MODEL.WEIGHTS`` are not looked at.
        path: packed file.
        engine: what runs it, in place of ``TERNARY.ENGINE``.

    Raises:
        InputError: the file is of another config, or as :func:`ptq_det.load_packed`.
    """
    return build_for_evaluation(PackedModel.read(path), cfg, engine)


def build_for_evaluation(packed: PackedModel, cfg: CfgNode, engine: str | None = None) -> nn.Module:
    """A packed model as a config has it; arguments and errors as :func:`load_for_evaluation`."""
    if not packed.architecture.is_detector:
        raise InputError(f"{packed.path} holds no detector but {packed.architecture}")
    packed = dataclasses.replace(packed, override=cfg)
    try:
        return build_packed(packed, cfg.MODEL.DEVICE, engine or cfg.TERNARY.ENGINE)
    except PackedFileError as error:
        raise InputError(
            f"{error}. It is a packed model of another config than this one; "
            "ptq_det.packed_config(path) gives its own"
        ) from error
