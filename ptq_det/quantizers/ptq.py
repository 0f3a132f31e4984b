"""Pruning ternary quantization (arXiv 2107.10998), reconstructed as docs/method.md says."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import QUANTIZER_REGISTRY, Quantizer, group_count
from .selection import kth_smallest

__all__ = ["PTQ", "powers_of_two", "project", "prune_"]

_LARGEST_SHIFT = 15  # of 4 bits


def project(weight: Tensor, by_filter: bool) -> Tensor:
    """L2 projection: each filter (or the layer) of ``(F, N)`` over its norm, 0 if that is 0."""
    norm = torch.linalg.vector_norm(weight, dim=1 if by_filter else None, keepdim=True)
    return weight / torch.where(norm > 0, norm, 1)


def prune_(magnitude: Tensor, sparsity: float) -> Tensor:
    """Set the ``round(sparsity · n)`` smallest values to 0 in place; of equal ones, the last first.

    Args:
        magnitude: n values of at least 0, any shape, contiguous.
        sparsity: fraction of zeros, in [0, 1).
    """
    zeros = round(sparsity * magnitude.numel())
    if zeros == 0:
        return magnitude
    limit = kth_smallest(magnitude, zeros)
    kept = magnitude.numel() - zeros
    above = int(torch.count_nonzero(magnitude > limit))
    if above == kept or limit == 0:
        return F.threshold_(magnitude, limit, 0.0)
    tied = (magnitude == limit).flatten().nonzero().squeeze(1)[: kept - above]
    F.threshold_(magnitude, limit, 0.0).view(-1)[tied] = limit
    return magnitude


def powers_of_two(scale: Tensor) -> Tensor:
    """Each scale becomes the nearest, by ratio, of the largest one times 2⁰, 2⁻¹, … 2⁻¹⁵."""
    largest = scale.amax()
    shifts = torch.where(scale > 0, largest / scale, 1).log2().round().clamp_(0, _LARGEST_SHIFT)
    return largest * torch.exp2(-shifts)


@QUANTIZER_REGISTRY.register()
class PTQ(Quantizer):
    """L2 projection, pruning to a sparsity, sign.

    Args:
        by_filter: projection and scale per filter, rather than per layer.
        scale: "mean", "norm", "learned" or "shift", as ``TERNARY.SCALE`` explains.
    """

    follows_sparsity = True
    prunes_first = True
    compensates = True

    def __init__(self, by_filter: bool = True, scale: str = "mean"):
        self.by_filter = by_filter
        self.learns_scale = scale == "learned"
        self._keeps_norm = scale == "norm"
        self.folds_norms = scale == "shift"

    @classmethod
    def from_options(cls, options):
        return cls(by_filter=options.normalize == "filter", scale=options.scale)

    def codes(self, weight, sparsity, threshold=None):
        # One buffer from the magnitude to the codes: fresh memory costs more than the arithmetic.
        magnitude = project(weight, self.by_filter).abs_()
        if threshold is None:
            prune_(magnitude, sparsity)
        else:
            F.threshold_(magnitude, threshold, 0.0)
        return magnitude.sign_().copysign_(weight)

    def scale(self, weight, codes):
        if self.folds_norms:
            return powers_of_two(super().scale(weight, codes))
        if not self._keeps_norm:
            return super().scale(weight, codes)
        norm = torch.linalg.vector_norm(weight, dim=1)
        if not self.by_filter:
            norm = torch.linalg.vector_norm(norm).unsqueeze(0)
        return norm.unsqueeze(0) / group_count(codes, self.by_filter, 1).clamp(min=1).sqrt()
