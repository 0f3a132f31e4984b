"""Weight equalizing shift scaler (arXiv 2008.05767): 8 bits a layer, a power of two a channel."""

from typing import Literal

import torch
from torch import Tensor

from .base import QUANTIZER_REGISTRY, Quantizer

__all__ = ["ShiftScaler", "channel_shifts"]


def channel_shifts(weight: Tensor, bits: int = 4) -> Tensor:
    """Bits by which each output channel is shifted up before it is quantized, ``(F,)``.

    s_c = min(2^bits − 1, ⌊log₂(R / R_c)⌋) with R_c the largest magnitude of channel c and R that of
    the layer; 0 for a channel of zeros.
    """
    ranges = weight.abs().amax(1) if weight.numel() else weight.new_zeros(len(weight))
    ratio = ranges.amax() / ranges if len(ranges) else ranges
    shifts = torch.where(ranges > 0, ratio, 1).log2().floor()
    return shifts.clamp_(0, 2**bits - 1)


@QUANTIZER_REGISTRY.register()
class ShiftScaler(Quantizer):
    """After training, per layer: one step S = R / 127, and a shift of 4 bits a channel.

    Codes are round(2^s_c · W_c / S) in −127 … 127, and the scale of channel c is S · 2^−s_c: a
    narrow channel loses one bit at most to one that has a step of its own.

    Args:
        shift_bits: bits of a shift; 0 for plain quantization with one step a layer.
    """

    by_filter = True
    freezes = False
    folds_norms = True
    levels = 127

    def __init__(self, shift_bits: Literal[0, 1, 2, 3, 4] = 4):
        self._shift_bits = shift_bits

    def codes(self, weight, sparsity, threshold=None):
        scale = self._scale(weight)
        return (weight / torch.where(scale > 0, scale, 1).T).round().clamp_(-127, 127)

    def scale(self, weight, codes):
        return self._scale(weight)

    def is_quantized(self, weight, tolerance=1e-4):
        scale = self._scale(weight)
        error = (weight - self.dequantize(self.codes(weight, 0.0), scale)).abs()
        return bool((error <= tolerance * scale.T).all())

    def codes_of_quantized(self, weight):
        return self.codes(weight, 0.0)

    def _scale(self, weight: Tensor) -> Tensor:
        if weight.numel() == 0:
            return weight.new_zeros(1, len(weight))
        shifts = channel_shifts(weight, self._shift_bits)
        return (weight.abs().amax() / 127 * torch.exp2(-shifts)).unsqueeze(0)
