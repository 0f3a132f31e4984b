"""One pruning threshold for all layers (``TERNARY.THRESHOLD "network"``)."""

import math

import torch
from torch import Tensor, nn

from ..quantizers import Quantizer
from ..quantizers.selection import kth_smallest
from .cache import can_cache
from .steps import optimizer_steps

__all__ = ["NetworkThreshold", "forget_threshold"]

_STRIDE = 31  # one weight in so many is looked at; odd, so that all columns are met


class NetworkThreshold:
    """Threshold in units of a group's root mean square, from a sample of all layers' weights.

    A projected weight is smaller the more weights share its norm, so magnitudes are compared
    between layers after multiplying by the root of the group's size. A function of the weights
    alone, so that it is the same after a resume and in every process.

    Args:
        layers: the layers that share it.
        sparsity: fraction of zeros over all of them.
    """

    def __init__(self, layers: list, sparsity: float):
        self.layers = layers
        self.sparsity = sparsity
        self._key = self._value = None

    def clear(self) -> None:
        """Forget the threshold."""
        self._key = self._value = None

    def of(self, layer) -> Tensor:
        """Threshold ``()`` of one layer, for projected weights (see :meth:`Quantizer.codes`)."""
        return self._shared() / _root_group_size(layer)

    def _shared(self) -> Tensor:
        if not can_cache():
            return self._compute()
        key = [(_version(x.weight), x.weight.data_ptr(), x.ternary.ratio) for x in self.layers]
        key.append(optimizer_steps())
        if key != self._key:
            self._key, self._value = key, self._compute()
        return self._value

    @torch.no_grad()
    def _compute(self) -> Tensor:
        values = torch.cat([_sample(layer) for layer in self.layers])
        zeros = round(self.sparsity * self.layers[0].ternary.ratio * len(values))
        return kth_smallest(values, zeros) if zeros else values.new_zeros(())


def forget_threshold(model: nn.Module, args) -> None:
    """Forward pre-hook of a model: weights may have been set since, in ways that leave no trace."""
    for module in model.modules():
        network = getattr(getattr(module, "ternary", None), "network", None)
        if network is not None:
            network.clear()
            return


def _sample(layer) -> Tensor:
    """Projected magnitudes of some weights, times the root of the size of their group."""
    filters = layer.to_filters(layer.weight).float()
    by_filter = layer.ternary.quantizer.by_filter
    norm = torch.linalg.vector_norm(filters, dim=1 if by_filter else None)
    norm = torch.where(norm > 0, norm, 1)
    if by_filter:
        places = torch.arange(0, filters.numel(), _STRIDE, device=filters.device)
        norm = norm[places // max(1, filters.shape[1])]
    return filters.flatten()[::_STRIDE].abs() / norm * _root_group_size(layer)


def _root_group_size(layer) -> float:
    quantizer: Quantizer = layer.ternary.quantizer
    filters = layer.to_filters(layer.weight)
    return math.sqrt(filters.shape[1] if quantizer.by_filter else max(1, filters.numel()))


def _version(weight: Tensor) -> int | None:
    return None if weight.is_inference() else weight._version
