"""What every quantizer is: codes from weights, and scales from weights and codes.

All functions here take a weight as a matrix of filters, ``(F, N)``: one output channel a row.
Codes are integers in the weight's floating-point dtype, so that they multiply without a
conversion: −1, 0, 1 of a ternary quantizer, more of one with more levels. A scale has the shape
``(S, G)``: S is 1, or 2 where positive (row 0) and negative (row 1) codes have scales of their own;
G is F for a scale a filter, or 1 for a scale a layer.
"""

from abc import ABC, abstractmethod

import torch
from fvcore.common.registry import Registry
from torch import Tensor

from ..codes import dequantize as weight_of

__all__ = [
    "QUANTIZER_REGISTRY",
    "Quantizer",
    "dequantize",
    "group_count",
    "group_mean",
    "group_sum",
]


def dequantize(codes: Tensor, scale: Tensor, *, overwrite: bool = False) -> Tensor:
    """Codes ``(F, N)`` times scale ``(S, G)``: the ternary weight ``(F, N)``.

    Args:
        overwrite: put it in the place of the codes, which saves fresh memory.
    """
    if overwrite and len(scale) == 1:
        return codes.mul_(scale[0].unsqueeze(1))
    return weight_of(codes, scale)


_BLOCK = 1 << 18  # weights that are worked on at a time, so that a product stays in the cache


def _dot(codes: Tensor, values: Tensor, by_filter: bool) -> Tensor:
    rows = max(1, _BLOCK // max(1, codes.shape[1]))
    blocks = zip(codes.split(rows), values.split(rows), strict=True)
    sums = torch.cat([(c * v).sum(1) for c, v in blocks])
    return sums if by_filter else sums.sum(0, keepdim=True)


def group_count(codes: Tensor, by_filter: bool, signs: int) -> Tensor:
    """Number ``(S, G)`` of nonzero codes that share a scale."""
    return group_sum(codes, codes, by_filter, signs)


def group_sum(values: Tensor, codes: Tensor, by_filter: bool, signs: int) -> Tensor:
    """Sum ``(S, G)`` of code × value over the codes that share a scale.

    For a gradient as values this is the gradient of the scale (TTQ, arXiv 1612.01064, equation 7).
    """
    if signs == 1:
        return _dot(codes, values, by_filter).unsqueeze(0)
    sides = (codes.clamp(min=0), codes.clamp(max=0))
    return torch.stack([_dot(side, values, by_filter) for side in sides])


def group_mean(values: Tensor, codes: Tensor, by_filter: bool, signs: int) -> Tensor:
    """Mean ``(S, G)`` of code × value over the codes that share a scale; 0 where there is none.

    For latent weights as values this is the mean magnitude of the kept weights, the scale of
    least squared error (TWN, arXiv 1605.04711, equation 5).
    """
    count = group_count(codes, by_filter, signs).clamp(min=1)
    return group_sum(values, codes, by_filter, signs) / count


QUANTIZER_REGISTRY = Registry("QUANTIZER")
QUANTIZER_REGISTRY.__doc__ = "Quantizers by the value of ``TERNARY.QUANTIZER``."


class Quantizer(ABC):
    """Quantizer of one weight matrix; holds choices, no state.

    Its options are the arguments of its constructor (:mod:`.options`): ``TERNARY.MATCH_SPARSITY``
    is the argument ``match_sparsity`` of the quantizers that have it.

    Attributes:
        by_filter: a scale a filter, rather than a scale a layer.
        signs: 2 where positive and negative codes have scales of their own, else 1.
        follows_sparsity: codes are 0 for the smallest |w| / ‖w‖ of the layer, the norm being that
            of the weights that share a scale, as many as the sparsity asks for; or for those below
            a threshold in these units. Hence the sparsity can be raised slowly, and one threshold
            can serve the whole network.
        learns_scale: the scale is a parameter, started at :meth:`scale`.
        levels: largest magnitude of a code; 1 of a ternary quantizer. Below 127, the 8 bits of what
            stays in float, depthwise convolutions do so by default.
        prunes_first: in the pruning stage, weights whose code is not 0 stay in float.
        masks_gradient: pruned weights get no gradient.
        freezes: it has a frozen stage, in which codes stay and scales move.
        compensates: latent weights that keep a layer's outputs are found for it before the first
            iteration, unless ``TERNARY.COMPENSATION`` is 0. It must follow the sparsity, be ternary
            and have one scale for both signs.
        folds_norms: norms are to be multiplied into the weight before it is quantized.
    """

    by_filter: bool = False
    signs: int = 1
    follows_sparsity: bool = False
    learns_scale: bool = False
    levels: int = 1
    prunes_first: bool = False
    masks_gradient: bool = False
    freezes: bool = True
    compensates: bool = False
    folds_norms: bool = False

    @property
    def scale_rows(self) -> int:
        """S, the number of rows of a scale: one a sign, where the quantizer says no other."""
        return self.signs

    @abstractmethod
    def codes(self, weight: Tensor, sparsity: float, threshold: float | None = None) -> Tensor:
        """Codes ``(F, N)`` of a latent weight ``(F, N)``.

        Args:
            weight: latent weight, float32 or float64.
            sparsity: fraction of zeros; used where :attr:`follows_sparsity` is set.
            threshold: magnitude under which a projected weight becomes 0, in place of the one that
                ``sparsity`` gives; used where :attr:`follows_sparsity` is set.
        """

    def scale(self, weight: Tensor, codes: Tensor) -> Tensor:
        """Scale ``(S, G)`` in closed form: the mean magnitude of the kept weights."""
        return group_mean(weight, codes, self.by_filter, self.signs)

    def latent_gradient(self, grad: Tensor, codes: Tensor, scale: Tensor) -> Tensor:
        """Gradient of the latent weight, given the ternary weight's: itself (straight through)."""
        return grad

    def dequantize(self, codes: Tensor, scale: Tensor, *, overwrite: bool = False) -> Tensor:
        """The quantized weight ``(F, N)``; arguments as of :func:`dequantize`."""
        return dequantize(codes, scale, overwrite=overwrite)

    def linear(self, scale: Tensor) -> tuple[Tensor, float]:
        """A scale ``(S, G)`` and an offset that give the same weight in every quantizer's terms.

        weight = sign(code) · (|code| − 1 + offset) · scale.
        """
        return scale, 1.0

    def is_quantized(self, weight: Tensor, tolerance: float = 1e-4) -> bool:
        """Whether a weight ``(F, N)`` has the values of codes already, to a relative tolerance.

        Where there is no zero, and no more than a weight a scale, as in any latent weight, it is
        taken for a latent one.
        """
        codes = weight.sign()
        alone = self.by_filter and weight.shape[1] <= self.signs
        if alone and bool(codes.all()):
            return weight.numel() == 0
        scale = group_mean(weight, codes, self.by_filter, self.signs)
        error = (weight - dequantize(codes, scale)).abs()
        return bool((error <= tolerance * weight.abs().max()).all())

    def codes_of_quantized(self, weight: Tensor) -> Tensor:
        """Codes ``(F, N)`` of a weight that is quantized already."""
        return weight.sign()

    def scale_of_quantized(self, weight: Tensor, codes: Tensor) -> Tensor:
        """Scale ``(S, G)`` of a weight that is quantized already, and its codes."""
        return self.scale(weight, codes)
