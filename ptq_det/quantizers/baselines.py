"""The two ternary baselines: TWN and TTQ."""

from abc import abstractmethod

from torch import Tensor

from .base import QUANTIZER_REGISTRY, Quantizer, dequantize
from .pruning import keep_largest_, project

__all__ = ["TTQ", "TWN"]


class _Baseline(Quantizer):
    """Threshold by a formula of its own.

    Args:
        match_sparsity: prune to the sparsity asked for in place of the formula, so that methods
            can be compared at equal size.
    """

    def __init__(self, match_sparsity: bool = False):
        self.follows_sparsity = match_sparsity

    def codes(self, weight, sparsity, threshold=None):
        if weight.numel() == 0:
            return weight.clone()
        if self.follows_sparsity and threshold is not None:
            magnitude = project(weight, self.by_filter).abs_().sub_(threshold)
        elif self.follows_sparsity:
            return keep_largest_(weight.abs().contiguous(), sparsity).copysign_(weight)
        else:
            magnitude = weight.abs().sub_(self.threshold_of(weight))
        return magnitude.sign_().clamp_(min=0).copysign_(weight)

    @abstractmethod
    def threshold_of(self, weight: Tensor) -> Tensor:
        """Magnitude ``()`` up to which weights become 0."""


@QUANTIZER_REGISTRY.register()
class TWN(_Baseline):
    """Ternary weight networks (arXiv 1605.04711): Δ = 0.7 · mean|w|, one scale a layer."""

    def threshold_of(self, weight):
        return 0.7 * weight.abs().mean()


@QUANTIZER_REGISTRY.register()
class TTQ(_Baseline):
    """Trained ternary quantization (arXiv 1612.01064): Δ = 0.05 · max|w|, two learned scales."""

    signs = 2
    learns_scale = True

    def threshold_of(self, weight):
        return 0.05 * weight.abs().amax()

    def latent_gradient(self, grad, codes, scale):
        """Gradient times the scale of its weight's side, or times 1 at a zero (equation 8)."""
        return grad * (dequantize(codes, scale).abs() + (codes == 0).to(grad.dtype))
