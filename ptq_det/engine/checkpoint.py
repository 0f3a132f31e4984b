"""Detectron2's checkpointer, for plain ``.safetensors`` files too."""

import os

import torch
from detectron2.checkpoint import DetectionCheckpointer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["TernaryCheckpointer", "load_weights", "save_int8_weights"]

_INT8, _SCALE = ".int8", ".int8_scale"


class TernaryCheckpointer(DetectionCheckpointer):
    """Reads what :class:`DetectionCheckpointer` reads, and weights in a safetensors file."""

    def _load_file(self, filename):
        if filename.endswith(".safetensors"):
            return {"model": load_weights(filename)}
        return super()._load_file(filename)


def save_int8_weights(weights: dict[str, Tensor], path: str) -> None:
    """Write float weights to a safetensors file, matrices and kernels in 8 bits.

    A tensor of two or more dimensions becomes int8 with a float32 scale for each index of its
    first dimension (the largest magnitude is 127 times the scale); others keep their dtype.

    Args:
        weights: names and tensors of a state dict.
        path: file to write; it appears when it is whole.
    """
    tensors = {}
    for name, tensor in weights.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.dim() < 2 or not tensor.is_floating_point():
            tensors[name] = tensor
            continue
        rows = tensor.float().flatten(1)
        scale = rows.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny) / 127
        codes = (rows / scale[:, None]).round().to(torch.int8)
        tensors[name + _INT8], tensors[name + _SCALE] = codes.reshape(tensor.shape), scale
    save_file(tensors, f"{path}.tmp")
    os.replace(f"{path}.tmp", path)


def load_weights(path: str) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file; those of :func:`save_int8_weights` as float32.

    Raises:
        ValueError: the file is not a whole safetensors file.
    """
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
    weights = {}
    for name, tensor in tensors.items():
        if name.endswith(_INT8) and name[: -len(_INT8)] + _SCALE in tensors:
            name = name[: -len(_INT8)]
            scale = tensors[name + _SCALE]
            tensor = tensor.float() * scale.reshape(-1, *[1] * (tensor.dim() - 1))
        elif name.endswith(_SCALE):
            continue
        weights[name] = tensor
    return weights
