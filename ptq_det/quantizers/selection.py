"""The k-th smallest magnitude of a large tensor, fast."""

import math

import torch
from torch import Tensor

__all__ = ["kth_magnitude"]

_SMALL = 1 << 17  # below this many values a plain selection is as fast
_SAMPLE = 1 << 16


def kth_magnitude(values: Tensor, k: int) -> float:
    """The k-th smallest of ``|values|``, k from 1 to the number of values.

    On a CPU ``torch.kthvalue`` of 12.8 million weights takes as long as a convolution. A sorted
    sample brackets the answer, so that only the values between two bounds are selected from; the
    answer is exact.
    """
    magnitude = values.detach().abs().flatten()
    if magnitude.is_cuda or magnitude.numel() <= _SMALL:
        return magnitude.kthvalue(k).values.item()
    n = magnitude.numel()
    sample = magnitude[:: n // _SAMPLE | 1].sort().values  # an odd step meets all columns
    m = sample.numel()
    margin = 5 * math.sqrt(m * (k / n) * (1 - k / n)) + 5  # five standard deviations of the rank
    low = sample[max(0, int(k / n * m - margin))].item()
    high = sample[min(m - 1, int(k / n * m + margin))].item()
    at_least = magnitude >= low
    rank = k - (n - int(torch.count_nonzero(at_least)))
    inside = magnitude[at_least & (magnitude <= high)]
    if 1 <= rank <= inside.numel():
        return inside.kthvalue(rank).values.item()
    return magnitude.kthvalue(k).values.item()
