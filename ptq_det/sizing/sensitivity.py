"""Error and bytes of a layer by its zeros."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..compensation.inputs import is_transposed, removes_mean
from ..packing.codec import encode_codes
from ..ternary.filters import filter_shape
from ..ternary.layers import TernaryLayer
from .observation import Observation

__all__ = ["SPARSITIES", "LayerSensitivity", "coded_bytes", "measure_layer", "output_error"]

# Below the first a ternary code only gets longer and worse; beyond the last so little is left of a
# layer that second order says nothing.
SPARSITIES = (0.4, 0.5, 0.6, 0.68, 0.75, 0.8, 0.85, 0.89, 0.92, 0.95)


@dataclass(frozen=True)
class LayerSensitivity:
    """What zeros cost a layer, and save.

    Attributes:
        name: of the layer.
        weights: how many it has.
        sparsities: fractions of zeros, rising.
        errors: what rounding with that many zeros adds to the loss, to second order and up to a
            factor that all layers share.
        sizes: bytes of its codes in a packed file.
    """

    name: str
    weights: int
    sparsities: tuple[float, ...]
    errors: tuple[float, ...]
    sizes: tuple[int, ...]


@torch.no_grad()
def measure_layer(
    name: str, layer: TernaryLayer, seen: Observation, sparsities: tuple[float, ...]
) -> LayerSensitivity:
    """Error and bytes of a layer's latent weight, rounded in one shot with so many zeros.

    Args:
        name: of the layer.
        layer: whose latent weight is that of a float model, and whose quantizer follows a sparsity.
        seen: of the float model's layer.
        sparsities: rising fractions of zeros.
    """
    filters = layer.to_filters(layer.weight).float()
    quantizer = layer.ternary.quantizer
    taps = layer.weight[0, 0].numel() if is_transposed(layer) else 1
    errors, sizes = [], []
    for sparsity in sparsities:
        codes = quantizer.codes(filters, sparsity)
        lost = filters - quantizer.dequantize(codes, quantizer.scale(filters, codes))
        errors.append(output_error(lost, seen, removes_mean(layer), taps))
        sizes.append(coded_bytes(layer, codes))
    return LayerSensitivity(name, filters.numel(), sparsities, tuple(errors), tuple(sizes))


def output_error(lost: Tensor, seen: Observation, centered: bool, taps: int = 1) -> float:
    """Σₒ Gₒ δₒ A δₒᵀ, with A the second moments of the inputs and G the outputs' weights.

    It is K-FAC's (Martens and Grosse, arXiv 1503.05671; of convolutions, Grosse and Martens,
    arXiv 1602.01407) second-order change of the loss, with the diagonal of its second factor.

    Args:
        lost: what rounding takes from each filter ``(F, C · taps)``.
        seen: of the layer.
        centered: moments are about the mean, whose error a norm or a bias takes away.
        taps: weights of a transposed convolution that see the same input, for different outputs.
    """
    total = 0.0
    for tap in range(taps):
        outputs = seen.inputs @ lost[:, tap::taps].T
        if centered:
            outputs -= outputs.mean(0)
        total += float(outputs.square().mean(0) @ seen.weight)
    return total / taps


def coded_bytes(layer: TernaryLayer, codes: Tensor) -> int:
    """Bytes of a layer's codes ``(F, N)`` in a packed file."""
    shape = filter_shape(tuple(layer.weight.shape), layer.groups if is_transposed(layer) else None)
    values = codes.to(torch.int8).numpy(force=True).reshape(shape)
    return len(encode_codes(np.ascontiguousarray(values)))
