"""Pruning ternary quantization (arXiv 2107.10998), reconstructed as docs/method.md says."""

from typing import Literal

import torch
from torch import Tensor

from .base import QUANTIZER_REGISTRY, Quantizer, group_count
from .pruning import keep_largest_, project

__all__ = ["PTQ", "powers_of_two"]

_LARGEST_SHIFT = 15  # of 4 bits


def powers_of_two(scale: Tensor) -> Tensor:
    """Each scale becomes the nearest, by ratio, of the largest one times 2⁰, 2⁻¹, … 2⁻¹⁵."""
    largest = scale.amax()
    shifts = torch.where(scale > 0, largest / scale, 1).log2().round().clamp_(0, _LARGEST_SHIFT)
    return largest * torch.exp2(-shifts)


@QUANTIZER_REGISTRY.register()
class PTQ(Quantizer):
    """L2 projection, pruning to a sparsity, sign.

    Args:
        normalize: the group of weights that the L2 projection acts on and that shares a scale: one
            output channel ("filter") or the whole "layer".
        scale: of a group with codes t and latent weights w: "mean" of |w| over t ≠ 0 (least
            squares), "norm" (‖w‖ / √‖t‖₀, keeps the group's length), "learned" (a parameter that
            starts at the mean) or "shift" (the mean, rounded to the layer's largest divided by a
            power of two up to 2¹⁵: the file has 4 bits a filter). "shift" folds frozen norms into
            the weights before it fine-tunes.
    """

    follows_sparsity = True
    prunes_first = True
    compensates = True

    def __init__(
        self,
        normalize: Literal["filter", "layer"] = "filter",
        scale: Literal["mean", "norm", "learned", "shift"] = "mean",
    ):
        self.by_filter = normalize == "filter"
        self.learns_scale = scale == "learned"
        self._keeps_norm = scale == "norm"
        self.folds_norms = scale == "shift"

    def codes(self, weight, sparsity, threshold=None):
        # One buffer from the magnitude to the codes: fresh memory costs more than the arithmetic.
        magnitude = project(weight, self.by_filter).abs_()
        if threshold is None:
            keep_largest_(magnitude, sparsity)
        else:
            magnitude.sub_(threshold).sign_().clamp_(min=0)
        return magnitude.copysign_(weight)

    def scale(self, weight, codes):
        if self.folds_norms:
            return powers_of_two(super().scale(weight, codes))
        if not self._keeps_norm:
            return super().scale(weight, codes)
        norm = torch.linalg.vector_norm(weight, dim=1)
        if not self.by_filter:
            norm = torch.linalg.vector_norm(norm).unsqueeze(0)
        return norm.unsqueeze(0) / group_count(codes, self.by_filter, 1).clamp(min=1).sqrt()
