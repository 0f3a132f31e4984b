"""Pruning by magnitude: which weights become 0."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .selection import kth_smallest

__all__ = ["project", "prune_"]


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
