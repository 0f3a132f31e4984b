"""The k-th smallest value of a large tensor, fast, and without waiting for a GPU."""

import math

import torch
from torch import Tensor

__all__ = ["kth_smallest"]

_SMALL = 1 << 16  # below this many values a plain selection is as fast
_SHARE = 64  # one value in so many is in the sample
_GOLDEN = 40_503  # 2¹⁶ over the golden ratio: multiples of it modulo 2¹⁶ are spread evenly
_DEVIATIONS = 5  # by how many standard deviations of a rank the bounds are apart from it
_MARGIN = 5  # and by how many ranks more


@torch.no_grad()
def kth_smallest(values: Tensor, k: int) -> Tensor:
    """The k-th smallest of some values ``()``, k from 1 to their number.

    Of a large tensor a sorted sample gives two bounds, and only the values between them are sorted.
    All shapes are fixed, so nothing is read back from the device, and the bounds can be compared
    with: what is at or beyond a bound that many values share is that bound. The answer is exact
    where the rank is between the bounds, which fails once in a million times for values in an order
    that has nothing to do with their size; it is the nearer bound then.
    """
    values = values.flatten()
    n = values.numel()
    if n <= _SMALL:
        return values.kthvalue(k).values
    m = n // _SHARE
    place = torch.arange(m, device=values.device)
    jitter = place * _GOLDEN % 2**16 * _SHARE >> 16  # one of each few, and no pattern repeats
    sample = values[place * _SHARE + jitter].sort().values
    rank = k / n * m
    margin = _DEVIATIONS * math.sqrt(m * (k / n) * (1 - k / n)) + _MARGIN
    low = sample[max(0, int(rank - margin))]
    high = sample[min(m - 1, int(rank + margin))]
    if rank - margin < 0:
        low = torch.full_like(low, -math.inf)
    if rank + margin >= m:
        high = torch.full_like(high, math.inf)
    inside = (values > low) & (values < high)
    room = min(n, int(2.5 * margin * n / m))  # a quarter more than what is expected
    found = values[inside.nonzero_static(size=room, fill_value=0).squeeze(1)]
    count = torch.count_nonzero(inside)
    found = torch.where(torch.arange(room, device=values.device) < count, found, math.inf)
    below = n - torch.count_nonzero(values > low)  # that are at most the lower bound
    place = k - below - 1
    between = found.sort().values.gather(0, place.clamp(0, room - 1).unsqueeze(0)).squeeze(0)
    return torch.where(place < 0, low, torch.where(place >= count, high, between))
