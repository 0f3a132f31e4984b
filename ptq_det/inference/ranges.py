"""Ranges of activations, and how a uint8 tensor stands for one."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Quantization", "Ranges", "best_range"]

Ranges = Mapping[str, tuple[float, float]]
"""Least and largest value of what a layer gets, by the layer's name; of what it gives, by the name
followed by ``OUTPUT``."""

_LARGEST = 255
_FRACTIONS = torch.linspace(0.1, 1.0, 91)


@dataclass(frozen=True)
class Quantization:
    """A uint8 code q stands for (q − zero_point) · scale; codes go up to ``largest``."""

    scale: float
    zero_point: int
    largest: int = _LARGEST

    @classmethod
    def of(cls, low: float, high: float, largest: int = _LARGEST) -> "Quantization":
        """The one whose codes span a range; 0 has a code of its own, as padding needs it."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = (high - low) / largest or 1.0
        return cls(scale, round(-low / scale), largest)

    def quantize(self, x: Tensor) -> Tensor:
        """float32 → uint8, to the nearest code."""
        codes = torch.mul(x, 1 / self.scale).round_().add_(self.zero_point)
        return codes.clamp_(0, self.largest).to(torch.uint8)

    def dequantize(self, x: Tensor) -> Tensor:
        """uint8 → float32."""
        return x.float().sub_(self.zero_point).mul_(self.scale)


def best_range(values: Tensor, low: float, high: float) -> tuple[float, float]:
    """The range, among shrunken ones of ``low`` to ``high``, whose steps have the least squared
    error.

    Args:
        values: a sample of the activations, float32. It need not have the extremes: to count them
            for more than one value each would widen the range.
        low: least activation, at most 0.
        high: largest activation, at least 0.
    """
    if low == high:
        return low, high
    ranges = [(low * float(fraction), high * float(fraction)) for fraction in _FRACTIONS]
    errors = []
    for candidate in ranges:
        quantization = Quantization.of(*candidate)
        rounded = quantization.dequantize(quantization.quantize(values))
        errors.append((rounded - values).square().sum())
    return ranges[int(torch.stack(errors).argmin())]
