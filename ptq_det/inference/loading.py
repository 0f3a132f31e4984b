"""A packed file as a model that runs."""

import ctypes
import logging
import os
import platform

import torch
from detectron2.config import CfgNode
from torch import nn

from ..errors import InputError
from ..packing import PackedModel
from ..packing.architecture import build_architecture
from .int8.convert import UnsupportedModelError, to_int8
from .int8.layers import saturates

__all__ = ["ENGINES", "build_int8", "load_for_evaluation", "load_packed"]

ENGINES = ("float", "int8")
_M_MMAP_THRESHOLD, _MMAP_THRESHOLD = -3, 1 << 18  # glibc's malloc.h; bytes


def load_packed(
    path: str | os.PathLike,
    device: str | torch.device | None = None,
    engine: str = "float",
) -> nn.Module:
    """The model in a packed file, ready to predict: in evaluation mode, without gradients.

    Args:
        path: file that ``pack_model`` or tools/measure_size.py wrote; an address of
            ``PathManager`` too.
        device: where to put it; without one, on a GPU where there is one.
        engine: "float", or "int8": integer arithmetic on the CPU, for a calibrated file of the
            R-CNN family with ResNet and FPN or of a RetinaNet. Where this CPU cannot do that, or
            there is no integer form of a part of the model, it runs in float and says why.

    Raises:
        FileNotFoundError: there is no such file.
        PackedFileError: it is not a packed model that this version can read, or damaged.
        InputError: there is no such engine, or the file was not calibrated for it.
    """
    if engine not in ENGINES:
        raise InputError(f"the engine {engine!r} is not known; there are {', '.join(ENGINES)}")
    if engine == "float":
        return PackedModel.read(path).build(device)
    _return_freed_memory()
    return build_int8(PackedModel.read(path), device)


def build_int8(packed: PackedModel, device: str | torch.device | None = None) -> nn.Module:
    """The model on integers, or in float where that cannot be; arguments and errors as
    :func:`load_packed`."""
    if not packed.ranges:
        raise InputError(
            f"{packed.path or 'the model'} was not calibrated, which the engine int8 needs: "
            "tools/measure_size.py --calibrate DATASET --output FILE makes a file that is"
        )
    logger = logging.getLogger("ptq_det")
    reason = _why_not(device)
    if reason is None:
        model = build_architecture(packed.architecture, packed.cfg, packed.path)
        try:
            to_int8(model, packed)
        except UnsupportedModelError as error:
            reason = str(error)
    if reason is not None:
        logger.warning("Engine: float, in place of int8: %s", reason)
        return packed.build(device)
    model.load_state_dict(
        {name: torch.from_numpy(value) for name, value in packed.tensors.items()}, strict=False
    )
    without = " without VNNI, with 7-bit inputs of 8-bit weights" if saturates() else ""
    logger.info("Engine: int8, by oneDNN%s", without)
    return model.requires_grad_(False).eval()


def load_for_evaluation(cfg: CfgNode) -> nn.Module:
    """The packed model ``MODEL.WEIGHTS`` on ``TERNARY.ENGINE``, with thresholds as in ``cfg``.

    Raises:
        InputError: the weights are no packed file, or as :func:`load_packed`.
    """
    weights = cfg.MODEL.WEIGHTS
    if not weights.endswith(".safetensors"):
        raise InputError(
            f"TERNARY.ENGINE {cfg.TERNARY.ENGINE} runs packed files, and MODEL.WEIGHTS is "
            f"{weights!r}; give the model_final.safetensors that training ends with"
        )
    packed = PackedModel.read(weights)
    packed.config = cfg.dump()
    return build_int8(packed, cfg.MODEL.DEVICE)


def _return_freed_memory() -> None:
    """Let glibc give freed tensors back to the system.

    It raises the size from which it does so with every large tensor that is freed, and activations
    then leave holes: a sixth of the peak of a process that predicts one picture.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)


def _why_not(device: str | torch.device | None) -> str | None:
    """Why integers cannot be worked with here, or None."""
    if device is not None and torch.device(device).type != "cpu":
        return f"it runs on a CPU, not on {device}"
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return "PyTorch has no oneDNN here"
    if not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        return "PyTorch's oneDNN has no qconv2d_pointwise here"
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return "this CPU has no AVX2"
    return None
