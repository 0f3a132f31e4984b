"""Settings of Detectron2 whose mistakes it tells late, or by a traceback."""

import difflib

import torch
from detectron2.config import CfgNode
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
)

from ..errors import InputError

__all__ = ["check_settings"]

_REGISTRIES = {
    "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.PROPOSAL_GENERATOR.NAME": PROPOSAL_GENERATOR_REGISTRY,
    "MODEL.ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
}
_CHOICES = {
    "INPUT.FORMAT": ("BGR", "RGB", "L", "YUV-BT.601"),
}
_TRAINING_CHOICES = {
    "DATALOADER.SAMPLER_TRAIN": (
        "TrainingSampler", "RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler",
    ),
    "SOLVER.LR_SCHEDULER_NAME": (
        "WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR",
    ),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm", "full_model"),
}  # fmt: skip
_LEAST = {"DATALOADER.NUM_WORKERS": 0}
_TRAINING_LEAST = {
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.WARMUP_ITERS": 0,
    "TEST.EVAL_PERIOD": 0,
}
_NO_GENERATOR = "PrecomputedProposals"  # which Detectron2 knows beside the registered ones


def check_settings(cfg: CfgNode, training: bool) -> None:
    """Hold names and numbers against what Detectron2 takes.

    Args:
        cfg: full config.
        training: whether it is trained, or evaluated alone.

    Raises:
        InputError: one is not taken; the message has key, value and what is.
    """
    for name, registry in _REGISTRIES.items():
        known = [each for each, _ in registry]
        known += [_NO_GENERATOR] if registry is PROPOSAL_GENERATOR_REGISTRY else []
        _require(cfg, name, known)
    for name, known in (_CHOICES | (_TRAINING_CHOICES if training else {})).items():
        _require(cfg, name, known)
    for name, least in (_LEAST | (_TRAINING_LEAST if training else {})).items():
        value = _value(cfg, name)
        if value < least:
            raise InputError(f"{name} is {value}; it must be at least {least}")
    _check_device(cfg.MODEL.DEVICE)
    mean, std = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    if len(mean) != len(std) or min(std, default=0) <= 0:
        raise InputError(
            f"MODEL.PIXEL_STD is {list(std)}; give a number above 0 for each of MODEL.PIXEL_MEAN"
        )
    if training:
        if not cfg.DATASETS.TRAIN:
            raise InputError("DATASETS.TRAIN is empty; name a data set, or give --eval-only")
        if not cfg.SOLVER.BASE_LR > 0:
            raise InputError(f"SOLVER.BASE_LR is {cfg.SOLVER.BASE_LR}; it must be above 0")


def _value(cfg: CfgNode, name: str):
    for key in name.split("."):
        cfg = cfg[key]
    return cfg


def _require(cfg: CfgNode, name: str, known: list[str] | tuple[str, ...]) -> None:
    value = _value(cfg, name)
    if value not in known:
        close = difflib.get_close_matches(str(value), known, n=3) or sorted(known)[:8]
        raise InputError(f"{name} is {value!r}, which is not known; did you mean {close}?")


def _check_device(device: str) -> None:
    try:
        torch.device(device)
    except RuntimeError:
        raise InputError(f"MODEL.DEVICE is {device!r}; give cpu, cuda or cuda:0") from None
