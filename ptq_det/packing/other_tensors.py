"""What a model has beside its layers, in the packed file: matrices in 8 bits, vectors in float16,
what is counted or measured as it is."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ..ternary.layers import OWN_KEYS
from .pack_layer import first_names, half_or_single, to_int8
from .packed_layer import PackedLayer
from .packed_parameter import PackedParameter, matrix_shape

__all__ = ["OtherTensors", "pack_others"]

_LEAST = 4096  # values of a matrix in 8 bits: its entries in the header take some hundred bytes
_LEAST_COLUMNS = 16  # below it the rows' scales weigh too much
_NUMPY_HAS = (torch.half, torch.float, torch.double)  # of the types of numbers with a point
_INTEGERS = (np.int8, np.int16, np.int32)


@dataclass
class OtherTensors:
    """Parameters and buffers that belong to no layer, by their names in the model.

    Attributes:
        parameters: those in 8 bits.
        tensors: all others, as the file holds them: parameters in float16 or float32, buffers as
            they are, signed integers in as few bytes as hold them.
    """

    parameters: dict[str, PackedParameter] = field(default_factory=dict)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all of them, in PyTorch."""
        return {name: each.shape for name, each in (self.tensors | self.parameters).items()}

    def state_dict(self) -> dict[str, Tensor]:
        """All of them as PyTorch has them by default: float32, int64, bool."""
        arrays = self.tensors | {name: each.values() for name, each in self.parameters.items()}
        return {name: _usual(torch.from_numpy(array)) for name, array in arrays.items()}

    @torch.no_grad()
    def give(self, model: nn.Module) -> None:
        """Give a model, in place, the values that the file holds of its parameters."""
        values, own = self.state_dict(), model.state_dict()
        for name in _parameter_names(model) & values.keys():
            own[name].copy_(values[name])


@torch.no_grad()
def pack_others(
    model: nn.Module, layers: dict[str, PackedLayer], float_layers: str
) -> OtherTensors:
    """The packed form of all that belongs to none of the layers, nor to a norm folded into one.

    Args:
        layers: the model's packed layers.
        float_layers: "int8", or "float16" for matrices too.
    """
    inside = {f"{name}.{key}" for name in layers for key in ("weight", "bias", *OWN_KEYS)}
    folded = tuple(f"{layer.norm}." for layer in layers.values() if layer.norm is not None)
    first, parameters = first_names(model), _parameter_names(model)
    found = OtherTensors()
    for name, tensor in model.state_dict().items():
        if first(name) in inside or (folded and name.startswith(folded)):
            continue
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point() and tensor.dtype not in _NUMPY_HAS:
            tensor = tensor.float()
        if not tensor.is_floating_point():
            found.tensors[name] = _narrow(tensor.numpy())
        elif name not in parameters:  # statistics, constants
            found.tensors[name] = tensor.numpy()
        elif float_layers == "int8" and _is_matrix(tensor):
            codes, scale = to_int8(tensor.double().reshape(matrix_shape(tensor.shape)))
            shape = tuple(tensor.shape)
            found.parameters[name] = PackedParameter.of(shape, codes.numpy(), scale)
        else:
            found.tensors[name] = half_or_single(tensor)
    return found


def _parameter_names(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters(remove_duplicate=False)}


def _is_matrix(tensor: Tensor) -> bool:
    large = tensor.numel() >= _LEAST and matrix_shape(tensor.shape)[1] >= _LEAST_COLUMNS
    return large and bool(tensor.isfinite().all())


def _narrow(array: np.ndarray) -> np.ndarray:
    """The same integers in the first type that holds them; others as they are."""
    if array.dtype.kind != "i" or not array.size:
        return array
    low, high = array.min(), array.max()
    fits = (t for t in _INTEGERS if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
    return array.astype(next(fits, array.dtype))


def _usual(tensor: Tensor) -> Tensor:
    if tensor.dtype == torch.float16:
        return tensor.float()
    return tensor.long() if tensor.dtype in (torch.int8, torch.int16, torch.int32) else tensor
