"""Pruning ternary quantization (arXiv 2107.10998), reconstructed as docs/method.md says."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import QUANTIZER_REGISTRY, Quantizer, group_count
from .selection import kth_magnitude

__all__ = ["PTQ", "project", "prune"]


def project(weight: Tensor, by_filter: bool) -> Tensor:
    """L2 projection: each filter (or the layer) of ``(F, N)`` over its norm, 0 if that is 0."""
    norm = torch.linalg.vector_norm(weight, dim=1 if by_filter else None, keepdim=True)
    return weight / torch.where(norm > 0, norm, 1)


def prune(values: Tensor, sparsity: float) -> Tensor:
    """Set the ``round(sparsity · n)`` smallest magnitudes to 0; of equal ones, the last first.

    Args:
        values: any shape, n values.
        sparsity: fraction of zeros, in [0, 1).
    """
    zeros = round(sparsity * values.numel())
    if zeros == 0:
        return values.clone()
    threshold = kth_magnitude(values, zeros)
    pruned = F.hardshrink(values, threshold)
    missing = values.numel() - zeros - int(torch.count_nonzero(pruned))
    if missing > 0 and threshold > 0:  # more values at the threshold than may go
        tied = (values.abs() == threshold).flatten().nonzero().squeeze(1)[:missing]
        pruned.view(-1)[tied] = values.flatten()[tied]
    return pruned


@QUANTIZER_REGISTRY.register()
class PTQ(Quantizer):
    """L2 projection, pruning to a sparsity, sign.

    Args:
        by_filter: projection and scale per filter, rather than per layer.
        scale: "mean", "norm" or "learned", as ``TERNARY.SCALE`` explains.
    """

    follows_sparsity = True

    def __init__(self, by_filter: bool = True, scale: str = "mean"):
        self.by_filter = by_filter
        self.learns_scale = scale == "learned"
        self._keeps_norm = scale == "norm"

    @classmethod
    def from_options(cls, normalize, scale):
        return cls(by_filter=normalize == "filter", scale=scale)

    def codes(self, weight, sparsity, threshold=None):
        projected = project(weight, self.by_filter)
        if threshold is None:
            return prune(projected, sparsity).sign_()
        return F.hardshrink(projected, threshold).sign_()

    def scale(self, weight, codes):
        if not self._keeps_norm:
            return super().scale(weight, codes)
        norm = torch.linalg.vector_norm(weight, dim=1)
        if not self.by_filter:
            norm = torch.linalg.vector_norm(norm).unsqueeze(0)
        return norm.unsqueeze(0) / group_count(codes, self.by_filter, 1).clamp(min=1).sqrt()
