"""The two ternary baselines: TWN and TTQ."""

import torch.nn.functional as F

from .base import QUANTIZER_REGISTRY, Quantizer, dequantize

__all__ = ["TTQ", "TWN"]


@QUANTIZER_REGISTRY.register()
class TWN(Quantizer):
    """Ternary weight networks (arXiv 1605.04711): Δ = 0.7 · mean|w|, one scale a layer."""

    def codes(self, weight, sparsity, threshold=None):
        if weight.numel() == 0:
            return weight.clone()
        return F.hardshrink(weight, 0.7 * weight.abs().mean().item()).sign_()


@QUANTIZER_REGISTRY.register()
class TTQ(Quantizer):
    """Trained ternary quantization (arXiv 1612.01064): Δ = 0.05 · max|w|, two learned scales."""

    signs = 2
    learns_scale = True

    def codes(self, weight, sparsity, threshold=None):
        if weight.numel() == 0:
            return weight.clone()
        return F.hardshrink(weight, 0.05 * weight.abs().max().item()).sign_()

    def latent_gradient(self, grad, codes, scale):
        """Gradient times the scale of its weight's side, or times 1 at a zero (equation 8)."""
        return grad * (dequantize(codes, scale).abs() + (codes == 0).to(grad.dtype))
