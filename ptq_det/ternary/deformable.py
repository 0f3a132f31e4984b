"""Detectron2's deformable convolutions with a ternary weight.

Where Detectron2 is not compiled its classes are stand-ins that cannot be built; these inherit from
them all the same, and are not built either.
"""

from detectron2.layers import DeformConv, ModulatedDeformConv

from .layers import TernaryLayer

__all__ = ["TernaryDeformConv", "TernaryModulatedDeformConv"]


class _Deformable(TernaryLayer):
    """Runs the plain layer's own forward, which reads ``weight``, on the forward weight."""

    def forward(self, *args):
        forward_weight = self.forward_weight()
        vars(self)["weight"] = forward_weight  # found before the parameter, which stays
        try:
            return super().forward(*args)
        finally:
            del vars(self)["weight"]


class TernaryDeformConv(_Deformable, DeformConv):
    """A ternary ``detectron2.layers.DeformConv``."""


class TernaryModulatedDeformConv(_Deformable, ModulatedDeformConv):
    """A ternary ``detectron2.layers.ModulatedDeformConv``."""
