"""SQuantizer (arXiv 1812.08301): sparsify first, then quantize what is left to k bits."""

from typing import Literal

import torch
from torch import Tensor

from .base import QUANTIZER_REGISTRY, Quantizer

__all__ = ["SQuantizer"]


@QUANTIZER_REGISTRY.register()
class SQuantizer(Quantizer):
    """Per layer, from the dense latent weight W at every forward pass.

    A weight is kept where |W| > t = mean|W| + σ·std|W|. Kept magnitudes between a least and a
    largest one become the nearest of 2^(k−1) evenly spaced levels. With 4 bits these bounds are t
    and the largest magnitude, with 2 bits the mean of the kept magnitudes and that plus two of
    their standard deviations. Codes are ± (level + 1), 0 where nothing is kept.

    Its scale ``(2, 1)`` holds the least magnitude and the step between two levels.

    Args:
        bits: k, 2 or 4.
        sigma: σ, the same for all layers: how many standard deviations above the mean magnitude
            of its layer a weight has to be to be kept. Larger is sparser.
    """

    freezes = False
    masks_gradient = True
    prunes_first = True
    scale_rows = 2  # least magnitude and step

    def __init__(self, bits: Literal[2, 4] = 4, sigma: float = 0.0):
        self.levels = 2 ** (bits - 1)
        self._sigma = sigma

    def codes(self, weight, sparsity, threshold=None):
        magnitude = weight.abs()
        kept = magnitude > self._threshold(magnitude)
        least, step = self._levels_of(magnitude, kept)
        level = ((magnitude - least) / torch.where(step > 0, step, 1)).round()
        level = level.clamp_(0, self.levels - 1)
        return (level + 1).mul_(kept).copysign_(weight)

    def scale(self, weight, codes):
        magnitude = weight.abs()
        return torch.stack(self._levels_of(magnitude, codes != 0)).reshape(2, 1)

    def dequantize(self, codes, scale, *, overwrite=False):
        value = codes.abs().sub_(1).mul_(scale[1]).add_(scale[0])
        return value.mul_(codes.sign())

    def linear(self, scale):
        step = scale[1:2]
        if float(step) == 0:
            return scale[0:1], 1.0
        return step, float(scale[0] / step)

    def is_quantized(self, weight, tolerance=1e-4):
        kept = weight != 0
        if bool(kept.all()):
            return weight.numel() == 0
        codes, scale = self.codes_of_quantized(weight), self._scale_of_quantized(weight)
        if codes.abs().max() > self.levels:
            return False
        error = (weight - self.dequantize(codes, scale)).abs()
        return bool((error <= tolerance * weight.abs().max()).all())

    def codes_of_quantized(self, weight):
        least, step = self._scale_of_quantized(weight)
        level = ((weight.abs() - least) / torch.where(step > 0, step, 1)).round()
        return (level + 1).mul_(weight != 0).copysign_(weight)

    def scale_of_quantized(self, weight, codes):
        return self._scale_of_quantized(weight)

    def _scale_of_quantized(self, weight: Tensor) -> Tensor:
        """Least magnitude and step of a weight that has a few magnitudes only."""
        magnitudes = weight[weight != 0].abs()
        if magnitudes.numel() == 0:
            return weight.new_zeros(2, 1)
        least, largest = magnitudes.min(), magnitudes.max()
        gaps = magnitudes[magnitudes > least * (1 + 1e-4)]
        step = weight.new_zeros(()) if gaps.numel() == 0 else gaps.min() - least
        if step > 0:  # the mean over all steps is less uncertain than a single one
            step = (largest - least) / ((largest - least) / step).round()
        return torch.stack([least, step]).reshape(2, 1)

    def _threshold(self, magnitude: Tensor) -> Tensor:
        if magnitude.numel() == 0:
            return magnitude.new_zeros(())
        return magnitude.mean() + self._sigma * magnitude.std(correction=0)

    def _levels_of(self, magnitude: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Least magnitude and step of the levels; 0 where nothing is kept."""
        count = torch.count_nonzero(kept)
        some = (count > 0).to(magnitude.dtype)
        if self.levels == 2:
            mean = (magnitude * kept).sum() / count.clamp(min=1)
            variance = ((magnitude - mean) * kept).square().sum() / count.clamp(min=1)
            return mean, 2 * variance.sqrt()
        least = self._threshold(magnitude)
        largest = (magnitude * kept).amax() if magnitude.numel() else least
        return least * some, (largest - least) * some / (self.levels - 1)
