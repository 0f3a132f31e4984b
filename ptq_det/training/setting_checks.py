"""Settings of Detectron2 whose mistakes it tells late, or by a traceback."""

import difflib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_KEYPOINT_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    RPN_HEAD_REGISTRY,
)
from detectron2.solver.build import GradientClipType

from ..errors import InputError

__all__ = ["building", "check_model_settings", "check_settings"]

_SHOWN = 8  # allowed values in a message where none is alike
_TWO_STAGES = ("GeneralizedRCNN", "PanopticFPN", "ProposalNetwork")
_LOADED_PROPOSALS = "PrecomputedProposals"  # which Detectron2 knows beside the registered ones
_DEPTHS = (18, 34, 50, 101, 152)
_CHANNELS = {
    "BGR": 3,
    "RGB": 3,
    "L": 1,
    "YUV-BT.601": 3,
    "HSV": 3,
    "YCbCr": 3,
    "RGBA": 4,
    "CMYK": 4,
}
_CHOICES = {  # of a training
    "DATALOADER.SAMPLER_TRAIN": (
        "TrainingSampler",
        "RepeatFactorTrainingSampler",
        "RandomSubsetTrainingSampler",
        "WeightedTrainingSampler",
        "WeightedCategoryTrainingSampler",
    ),
    "SOLVER.LR_SCHEDULER_NAME": (
        "WarmupMultiStepLR",
        "WarmupCosineLR",
        "WarmupStepWithFixedGammaLR",
    ),
    "SOLVER.WARMUP_METHOD": ("constant", "linear"),
    "INPUT.CROP.TYPE": ("relative_range", "relative", "absolute", "absolute_range"),
}
_LEAST = {  # of a training
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "SOLVER.WARMUP_ITERS": 0,
    "SOLVER.WARMUP_FACTOR": 0,
    "SOLVER.MOMENTUM": 0,
    "SOLVER.WEIGHT_DECAY": 0,
    "SOLVER.WEIGHT_DECAY_NORM": 0,
    "SOLVER.BIAS_LR_FACTOR": 0,
    "SOLVER.REFERENCE_WORLD_SIZE": 0,
    "TEST.EVAL_PERIOD": 0,
    "VIS_PERIOD": 0,
}


@contextmanager
def building(what: str) -> Iterator[None]:
    """Turn what Detectron2 raises while something is built into an :class:`InputError`.

    Args:
        what: is built.
    """
    try:
        yield
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:  # builders end in whatever a wrong value leads to
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{what} cannot be built from this config ({type(error).__name__}: {reason})"
        ) from error


def check_settings(cfg: CfgNode, training: bool = True) -> None:
    """Hold names and numbers against what Detectron2 takes.

    Args:
        cfg: full config.
        training: whether it is trained, or evaluated alone.

    Raises:
        InputError: some are not taken; the message has keys, values and what is.
    """
    found = [*_of_the_model(cfg), *_of_the_data(cfg, training)]
    if training:
        found += _of_the_solver(cfg)
    else:
        found += _of_the_folder(cfg.OUTPUT_DIR)
    _refuse(found)


def check_model_settings(cfg: CfgNode) -> None:
    """As :func:`check_settings`, of what a model is built of alone."""
    _refuse(list(_of_the_model(cfg)))


def _refuse(found: list[str]) -> None:
    if len(found) == 1:
        raise InputError(found[0])
    if found:
        raise InputError("settings cannot be used:\n  " + "\n  ".join(found))


def _of_the_model(cfg: CfgNode) -> Iterator[str]:
    """What is wrong with what a model is built of, a line each."""
    for name, registry in _registries(cfg).items():
        known = [each for each, _ in registry]
        known += [_LOADED_PROPOSALS] if registry is PROPOSAL_GENERATOR_REGISTRY else []
        yield from _unknown(cfg, name, known)
    if "resnet" in cfg.MODEL.BACKBONE.NAME and cfg.MODEL.BACKBONE.NAME in BACKBONE_REGISTRY:
        yield from _unknown(cfg, "MODEL.RESNETS.DEPTH", _DEPTHS)
    yield from _wrong_device(cfg.MODEL.DEVICE)
    mean, std, form = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD, cfg.INPUT.FORMAT
    if len(mean) != len(std) or not all(math.isfinite(x) and x > 0 for x in std):
        yield (
            f"MODEL.PIXEL_STD is {list(std)}; give a number above 0 for each of the {len(mean)} of "
            "MODEL.PIXEL_MEAN"
        )
    if not all(map(math.isfinite, mean)):
        yield f"MODEL.PIXEL_MEAN is {list(mean)}; give finite numbers"
    yield from _unknown(cfg, "INPUT.FORMAT", _CHANNELS)
    if _CHANNELS.get(form, len(mean)) != len(mean):
        yield (
            f"INPUT.FORMAT {form} has {_CHANNELS[form]} channels, and MODEL.PIXEL_MEAN "
            f"{len(mean)}; give a number for each channel"
        )


def _registries(cfg: CfgNode) -> dict:
    """Keys whose values are names of registered parts, as far as the model has these parts."""
    kind, proposals, heads = (
        cfg.MODEL.META_ARCHITECTURE,
        cfg.MODEL.PROPOSAL_GENERATOR.NAME,
        cfg.MODEL.ROI_HEADS.NAME,
    )
    found = {
        "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
        "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    }
    if kind in (*_TWO_STAGES, "RetinaNet"):
        found["MODEL.ANCHOR_GENERATOR.NAME"] = ANCHOR_GENERATOR_REGISTRY
    if kind in _TWO_STAGES:
        found["MODEL.PROPOSAL_GENERATOR.NAME"] = PROPOSAL_GENERATOR_REGISTRY
        if proposals == "RPN":
            found["MODEL.RPN.HEAD_NAME"] = RPN_HEAD_REGISTRY
    if kind in _TWO_STAGES and kind != "ProposalNetwork":
        found["MODEL.ROI_HEADS.NAME"] = ROI_HEADS_REGISTRY
        if heads in ("StandardROIHeads", "CascadeROIHeads"):
            found["MODEL.ROI_BOX_HEAD.NAME"] = ROI_BOX_HEAD_REGISTRY
        if cfg.MODEL.MASK_ON:
            found["MODEL.ROI_MASK_HEAD.NAME"] = ROI_MASK_HEAD_REGISTRY
        if cfg.MODEL.KEYPOINT_ON:
            found["MODEL.ROI_KEYPOINT_HEAD.NAME"] = ROI_KEYPOINT_HEAD_REGISTRY
    return found


def _wrong_device(name: str) -> Iterator[str]:
    try:
        device = torch.device(name)
        if device.type != "cuda":  # others' presence is told with more words elsewhere
            torch.zeros(1, device=device).cpu()
    except Exception as error:  # each kind of device has its own errors
        reason = (str(error).strip().splitlines() or [""])[0][:100]
        yield f"MODEL.DEVICE is {name!r}, which cannot be used ({reason}); give cpu, cuda or cuda:0"
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else None
    if device.type == "cuda" and count is not None and (device.index or 0) >= count:
        last = f"cuda:{count - 1}"
        yield f"MODEL.DEVICE is {name!r}, and there are {count} GPUs; give cuda:0 to {last}"


def _of_the_data(cfg: CfgNode, training: bool) -> Iterator[str]:
    if training and not cfg.DATASETS.TRAIN:
        yield "DATASETS.TRAIN is empty; name a data set, or evaluate with --eval-only"
    if not training and not cfg.DATASETS.TEST:
        yield "DATASETS.TEST is empty, so nothing is evaluated; name a data set"
    yield from _too_small(cfg, "DATALOADER.NUM_WORKERS", 0)
    yield from _too_small(cfg, "TEST.DETECTIONS_PER_IMAGE", 1)


def _of_the_solver(cfg: CfgNode) -> Iterator[str]:
    for name, known in _CHOICES.items():
        if name != "INPUT.CROP.TYPE" or cfg.INPUT.CROP.ENABLED:
            yield from _unknown(cfg, name, known)
    for name, least in _LEAST.items():
        yield from _too_small(cfg, name, least)
    for name in ("SOLVER.BASE_LR", "SOLVER.GAMMA"):
        value = _value(cfg, name)
        if not 0 < value < math.inf:
            yield f"{name} is {value}; it must be above 0"
    end, start = cfg.SOLVER.BASE_LR_END, cfg.SOLVER.BASE_LR
    if cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupCosineLR" and not 0 <= end <= max(start, 0):
        yield f"SOLVER.BASE_LR_END is {end}; it must be from 0 to SOLVER.BASE_LR, {start}"
    steps = list(cfg.SOLVER.STEPS)
    if steps != sorted(set(steps)) or any(step < 1 for step in steps):
        yield f"SOLVER.STEPS is {tuple(steps)}; give iterations above 0, each later than the last"
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if clip.ENABLED:
        known = [kind.value for kind in GradientClipType]
        yield from _unknown(cfg, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", known)
        if not clip.CLIP_VALUE > 0:
            yield f"SOLVER.CLIP_GRADIENTS.CLIP_VALUE is {clip.CLIP_VALUE}; it must be above 0"
    ratio = cfg.DATALOADER.get("RANDOM_SUBSET_RATIO", 1)  # no key of Detectron2's own config
    if cfg.DATALOADER.SAMPLER_TRAIN == "RandomSubsetTrainingSampler" and not 0 < ratio <= 1:
        yield f"DATALOADER.RANDOM_SUBSET_RATIO is {ratio}; it must be above 0 and at most 1"


def _of_the_folder(folder: str) -> Iterator[str]:
    """Whether results can be written; the nearest folder that is there decides."""
    if "://" in folder:
        return
    place = os.path.abspath(folder)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place) or not os.access(place, os.W_OK | os.X_OK):
        why = "no folder" if not os.path.isdir(place) else "not to be written to"
        yield f"OUTPUT_DIR {folder!r} cannot be used: {place!r} is {why}; set another folder"


def _value(cfg: CfgNode, name: str):
    for key in name.split("."):
        cfg = cfg[key]
    return cfg


def _unknown(cfg: CfgNode, name: str, known) -> Iterator[str]:
    value, known = _value(cfg, name), list(known)
    if value in known:
        return
    close = difflib.get_close_matches(str(value), list(map(str, known)), n=3)
    if close:
        yield f"{name} is {value!r}, which there is not. Did you mean {' or '.join(close)}?"
    else:
        shown = ", ".join(map(str, known[:_SHOWN])) + (", …" if len(known) > _SHOWN else "")
        yield f"{name} is {value!r}, which there is not; choose from {shown}"


def _too_small(cfg: CfgNode, name: str, least: int) -> Iterator[str]:
    value = _value(cfg, name)
    if value is not None and not value >= least:  # not a number is no number that is enough
        yield f"{name} is {value}; it must be at least {least}"
