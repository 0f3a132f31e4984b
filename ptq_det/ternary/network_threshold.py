"""One pruning threshold for all layers (``TERNARY.THRESHOLD "network"``)."""

import math

import torch

from ..quantizers import Quantizer
from ..quantizers.pruning import project
from ..quantizers.selection import kth_smallest

__all__ = ["NetworkThreshold"]

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
        """Forget the threshold: a fused optimizer's step leaves no trace in versions of weights."""
        self._key = self._value = None

    def of(self, layer) -> float:
        """Threshold of one layer, for projected weights (see :meth:`Quantizer.codes`)."""
        return self._shared() / _root_group_size(layer)

    def _shared(self) -> float:
        key = tuple((x.weight._version, x.weight.data_ptr(), x.ternary.ratio) for x in self.layers)
        if key != self._key:
            self._key, self._value = key, self._compute()
        return self._value

    @torch.no_grad()
    def _compute(self) -> float:
        sample = []
        for layer in self.layers:
            filters = layer.to_filters(layer.weight).float()
            projected = project(filters, layer.ternary.quantizer.by_filter)
            sample.append(projected.flatten()[::_STRIDE].abs() * _root_group_size(layer))
        values = torch.cat(sample)
        zeros = round(self.sparsity * self.layers[0].ternary.ratio * len(values))
        return kth_smallest(values, zeros) if zeros else 0.0


def _root_group_size(layer) -> float:
    quantizer: Quantizer = layer.ternary.quantizer
    filters = layer.to_filters(layer.weight)
    return math.sqrt(filters.shape[1] if quantizer.by_filter else max(1, filters.numel()))
