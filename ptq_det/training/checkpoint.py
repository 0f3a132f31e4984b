"""Safetensors files as weights for Detectron2's checkpointer: packed models and plain weights."""

import torch
from detectron2.checkpoint import DetectionCheckpointer
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import InputError
from ..files import replacing
from ..packing.container import PackedFileError, is_packed
from ..packing.filling import fix_inputs
from ..packing.packed_model import PackedModel
from ..ternary.layers import OWN_KEYS
from ..ternary.ternarize import restore_classes
from .foreign import as_detectron2_has_it, form_of, trusted_scalars, what_it_is

__all__ = ["load_weights", "register_safetensors", "save_int8_weights"]

_INT8, _SCALE = ".int8", ".int8_scale"
# Detectron2's own, also where this module is loaded again and its own is there already.
_load_other = getattr(
    DetectionCheckpointer._load_file, "replaced", DetectionCheckpointer._load_file
)


def register_safetensors() -> None:
    """Let every ``DetectionCheckpointer`` read packed files and ``MODEL.WEIGHTS x.safetensors``.

    Detectron2 has no registry of file types, and ``DefaultPredictor`` and ``DefaultTrainer`` make
    the checkpointer themselves, so its method is replaced by one that falls back on it.
    """
    _load_file.replaced = _load_other
    DetectionCheckpointer._load_file = _load_file


def _load_file(self, filename):
    if is_packed(filename):  # by its content, whatever it is called
        return {"model": _fitting_weights(self.model, filename)}
    try:
        form = form_of(filename)
        if form == "safetensors" or (not form and filename.endswith(".safetensors")):
            loaded = {"model": load_weights(filename)}
        elif form == "torch" and not filename.endswith((".pth", ".pyth")):
            with trusted_scalars(), open(filename, "rb") as file:  # others go by the name
                loaded = {"model": self._torch_load(file)}
        else:
            with trusted_scalars():
                loaded = _load_other(self, filename)
    except Exception as error:  # unpickling may end in anything
        raise what_it_is(filename, error) from error
    return as_detectron2_has_it(loaded, filename, self.model.state_dict())


def _fitting_weights(model: nn.Module, path: str) -> dict[str, Tensor]:
    """Weights of a packed file for a model, whose ternary layers become plain for evaluation.

    A packed scale has the norm folded in, so it is not the scale that a ternary layer would find
    again. A model in training mode keeps its ternary layers and takes the weights for latent ones.
    """
    packed = PackedModel.read(path)
    if not packed.architecture.is_detector:
        raise PackedFileError(path, f"it holds no detector but {packed.architecture}")
    weights = packed.state_dict()
    if not model.training:
        restore_classes(model)
        fix_inputs(model, packed.layers)
    expected, found = (
        {
            name: tuple(tensor.shape)
            for name, tensor in tensors.items()
            if not name.endswith("num_batches_tracked")  # which norms that were folded lack
        }
        for tensors in (model.state_dict(), weights)
    )
    unlike = sorted(
        name
        for name in {*expected, *found}
        if expected.get(name) != found.get(name)
        and not name.endswith(tuple(f".{key}" for key in OWN_KEYS))
    )
    if unlike:
        name = unlike[0]
        raise InputError(
            f"{path} is a packed model of another config: {name!r} has the shape "
            f"{found.get(name)} there and {expected.get(name)} in this config "
            f"({len(unlike)} differences). ptq_det.packed_config(path) gives its own config."
        )
    return weights


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
    with replacing(path) as scratch:
        save_file(tensors, scratch)


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
