"""Detectron2's deformable convolutions with a ternary weight.

Where Detectron2 is not compiled its classes are stand-ins that cannot be built; these inherit from
them all the same, and are not built either.
"""

from detectron2.layers import DeformConv, ModulatedDeformConv
from torch import Tensor, nn

from .layers import TernaryLayer

__all__ = ["TernaryDeformConv", "TernaryModulatedDeformConv"]


class _WithWeight:
    """A layer as its forward sees it, with another weight.

    The layer itself is left alone: other threads may run it at the same time.
    """

    def __init__(self, layer: nn.Module, weight: Tensor):
        self._layer, self.weight = layer, weight

    def __getattr__(self, name):
        return getattr(self._layer, name)


class _Deformable(TernaryLayer):
    """Runs the plain layer's own forward, which reads ``weight``, on the forward weight."""

    def forward(self, *args, **kwargs):
        seen = _WithWeight(self, self.forward_weight())
        return self.ternary.plain.forward(seen, *args, **kwargs)


class TernaryDeformConv(_Deformable, DeformConv):
    """A ternary ``detectron2.layers.DeformConv``."""


class TernaryModulatedDeformConv(_Deformable, ModulatedDeformConv):
    """A ternary ``detectron2.layers.ModulatedDeformConv``."""
