"""Pruning by magnitude: which weights become 0."""

import torch
from torch import Tensor

from .selection import kth_smallest

__all__ = ["keep_largest_", "project"]


def project(weight: Tensor, by_filter: bool) -> Tensor:
    """L2 projection: each filter (or the layer) of ``(F, N)`` over its norm, 0 if that is 0."""
    norm = torch.linalg.vector_norm(weight, dim=1 if by_filter else None, keepdim=True)
    return weight / torch.where(norm > 0, norm, 1)


def keep_largest_(magnitude: Tensor, sparsity: float) -> Tensor:
    """Overwrite magnitudes: 0 for the ``round(sparsity · n)`` smallest, of equal ones the last, and
    1 for all others that are not 0. Nothing is read back from the device.

    Args:
        magnitude: n values ``(F, N)`` of at least 0, in float32 or float64.
        sparsity: fraction of zeros, in [0, 1).
    """
    zeros = round(sparsity * int(magnitude.numel()))  # which is a tensor where a model is traced
    if zeros == 0:
        return magnitude.sign_()
    limit = kth_smallest(magnitude, zeros)
    side = magnitude.sub_(limit).sign_()  # of the limit; 0 on it
    apart = torch.linalg.vector_norm(side, ord=1, dim=1).long()
    on_limit = side.shape[1] - apart
    above = (apart.sum() + side.sum(1).long().sum()) // 2
    # As many are kept of those on the limit as are too few above it: whole rows, then part of one.
    until, kept = on_limit.cumsum(0), (magnitude.numel() - zeros - above) * (limit > 0)
    row = (until <= kept).sum().clamp(max=len(side) - 1).unsqueeze(0)
    split = side.index_select(0, row)
    first = (split == 0).cumsum(1) <= kept - (until - on_limit).index_select(0, row)
    split = torch.where((split > 0) | ((split == 0) & first), 1.0, -1.0).to(side.dtype)
    side.add_(torch.where(until <= kept, 0.5, -0.5).to(side.dtype).unsqueeze(1))
    return side.index_copy_(0, row, split).sign_().clamp_(min=0)
