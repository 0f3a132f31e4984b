"""Error compensation: latent weights whose codes keep a layer's outputs, rather than its weights.

Rounding one weight after the other, each error is made good by the weights that are not rounded
yet, as far as their inputs go along with its own (GPTQ, Frantar et al., arXiv 2210.17323,
equations 2 and 3, whose rounding is that to ternary codes here). What the layers before have lost
is made good first, as far as the outputs on the inputs at hand can be those on the float model's
(the aim of GPTAQ, Li et al., arXiv 2504.02692).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..quantizers import Quantizer
from ..quantizers.selection import kth_smallest
from .moments import InputMoments

__all__ = ["Compensated", "compensate", "make_good"]

_DAMPING = 0.1  # of the mean variance of the inputs, added to each
_LOST_DAMPING = (0.1, 1.0, 10.0)  # the same, to choose from, for what inputs lack
_ATTEMPTS = 6  # to find a damping, each ten times the one before
_BLOCK = 128  # weights of a filter between two updates of all that follow
_PASSES = 4  # to find the threshold that gives the sparsity


def make_good(weight: Tensor, fit: InputMoments, held: InputMoments, centered: bool) -> Tensor:
    """Weights whose outputs on the inputs at hand are nearer to those on the float model's inputs.

    With W the weight, X the inputs at hand and X + D those of the float model, it is
    W + W D Xᵀ (X Xᵀ + λ)⁻¹, which minimizes ‖W (X + D) − W′ X‖² + λ ‖W − W′‖². The λ is that of
    least error on other pictures, or beyond all where none helps there.

    Args:
        weight: ``(F, C)``, float32.
        fit: moments of inputs that λ is tried with.
        held: of those that it is judged by.
        centered: about their means.
    """
    if fit.count == 0 or held.count == 0:
        return weight
    moments, wanted = held.matrix(centered), weight @ held.lost_matrix(centered)
    best, least = None, 0.0
    for share in _LOST_DAMPING:
        change = _change(weight, fit, share, centered)
        error = float((change * (change @ moments - 2 * wanted)).sum())
        if error < least:
            best, least = share, error
    return weight if best is None else weight + _change(weight, fit + held, best, centered)


def _change(weight: Tensor, inputs: InputMoments, share: float, centered: bool) -> Tensor:
    moments = inputs.matrix(centered)
    wanted = weight @ inputs.lost_matrix(centered)
    return torch.cholesky_solve(wanted.T, _factor(moments, share)).T


@dataclass(frozen=True)
class Compensated:
    """What :func:`compensate` found.

    Attributes:
        latent: latent weight ``(F, N)``.
        error_before: squared error of the outputs over their square, in one shot.
        error: the same with the quantizer's codes and scale of ``latent``.
    """

    latent: Tensor
    error_before: float
    error: float


def compensate(
    weight: Tensor,
    columns: list[Tensor],
    moments: list[Tensor],
    sparsity: float,
    quantizer: Quantizer,
) -> Compensated:
    """A latent weight that a quantizer gives codes and scale of small output error.

    Args:
        weight: filters ``(F, N)``, float32.
        columns: for each group of weights the indices ``(C,)`` of its columns; groups are taken
            to be independent of each other, and every column is in one.
        moments: of the inputs of each group ``(C, C)``.
        sparsity: fraction of zeros, in [0, 1).
        quantizer: one that :attr:`~ptq_det.quantizers.Quantizer.compensates`.
    """
    by_filter = quantizer.by_filter
    norm = torch.linalg.vector_norm(weight, dim=1 if by_filter else None).expand(len(weight))
    factors = [_inverse_factor(each) for each in moments]
    zeros = round(sparsity * weight.numel())
    limit = _limit(weight, norm, zeros)
    codes = torch.where(weight.abs() > (limit * norm).unsqueeze(1), weight.sign(), 0)
    scale = _scale(weight, codes, quantizer)
    before = _relative_error(weight, codes * scale.unsqueeze(1), columns, moments)

    below = above = None  # thresholds with too few and too many zeros, and how many
    for last in range(1, _PASSES + 1):
        latent = torch.empty_like(weight)
        for places, (order, factor) in zip(columns, factors, strict=True):
            chosen = places[order]
            latent[:, chosen] = _one_pass(
                weight[:, chosen].T.contiguous(), factor, limit * norm, scale
            ).T
        codes = torch.where(latent.abs() > (limit * norm).unsqueeze(1), latent.sign(), 0)
        scale = _best_scale(weight, codes, columns, moments, by_filter, scale)
        found = codes.numel() - int(codes.count_nonzero())
        if found == zeros or zeros == 0 or last == _PASSES:
            break
        if found < zeros:
            below = (limit, found)
        else:
            above = (limit, found)
        limit = _next_limit(below, above, zeros) or _limit(latent, norm, zeros)

    latent = _settle(latent, codes, zeros, by_filter)
    kept = _scale(latent, codes, quantizer)
    latent *= torch.where(kept > 0, scale / kept, 1).unsqueeze(1)
    codes = quantizer.codes(latent, sparsity)
    value = codes * _scale(latent, codes, quantizer).unsqueeze(1)
    return Compensated(latent, before, _relative_error(weight, value, columns, moments))


def _limit(weight: Tensor, norm: Tensor, zeros: int) -> float:
    """Threshold on ``|weight| / norm`` that as many as ``zeros`` do not pass."""
    if zeros == 0:
        return 0.0
    return float(kth_smallest(weight.abs() / torch.where(norm > 0, norm, 1).unsqueeze(1), zeros))


def _next_limit(below, above, zeros: int) -> float | None:
    """Between two thresholds, by their numbers of zeros; None where one of them is missing."""
    if below is None or above is None or below[0] <= 0:
        return None
    share = (zeros - below[1]) / (above[1] - below[1])
    return math.exp(math.log(below[0]) + share * math.log(above[0] / below[0]))


def _scale(weight: Tensor, codes: Tensor, quantizer: Quantizer) -> Tensor:
    return quantizer.scale(weight, codes)[0].expand(len(weight))


def _inverse_factor(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Columns by falling variance, and in their order U of H⁻¹ = UᵀU, H the damped moments."""
    variance = moments.diagonal()
    order = variance.argsort(descending=True)
    inverse = torch.cholesky_inverse(_factor(moments[order][:, order], _DAMPING))
    return order, torch.linalg.cholesky(inverse, upper=True)


def _factor(moments: Tensor, share: float) -> Tensor:
    """Cholesky factor of damped moments; the damping grows until there is one.

    Inputs far from zero mean leave moments about the mean that rounding has made indefinite.

    Raises:
        torch.linalg.LinAlgError: there is none, as of moments that are not finite.
    """
    least = max(0.0, -float(moments.diagonal().min()))
    for attempt in range(_ATTEMPTS):
        damped = moments.clone()
        damped.diagonal().add_(least + _damping(moments, share) * 10.0**attempt)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not failed and bool(factor.isfinite().all()):
            return factor
    raise torch.linalg.LinAlgError("the moments of the inputs have no Cholesky factor")


def _damping(moments: Tensor, share: float) -> float:
    return float(share * moments.diagonal().abs().mean()) or 1.0


def _one_pass(rest: Tensor, factor: Tensor, limit: Tensor, scale: Tensor) -> Tensor:
    """What each weight is when it is rounded.

    Args:
        rest: ``(C, F)``, a filter a column; overwritten.
        factor: ``(C, C)``, upper triangular.
        limit: magnitude ``(F,)`` up to which a code is 0.
        scale: ``(F,)``.
    """
    latent = torch.empty_like(rest)
    for first in range(0, len(rest), _BLOCK):
        block = rest[first : first + _BLOCK]
        own = factor[first : first + _BLOCK, first : first + _BLOCK]
        errors = torch.empty_like(block)
        for i, weight in enumerate(block):
            latent[first + i] = weight
            rounded = torch.where(weight.abs() > limit, weight.sign() * scale, 0)
            torch.div(weight - rounded, own[i, i], out=errors[i])
            block[i + 1 :].addr_(own[i, i + 1 :], errors[i], alpha=-1)
        after = first + len(block)
        rest[after:].addmm_(factor[first:after, after:].T, errors, alpha=-1)
    return latent


def _best_scale(weight, codes, columns, moments, by_filter, otherwise) -> Tensor:
    """Scale ``(F,)`` of least output error, or another one where that is not positive."""
    found = wanted = 0
    for places, matrix in zip(columns, moments, strict=True):
        seen = codes[:, places] @ matrix
        wanted = wanted + (seen * weight[:, places]).sum(1)
        found = found + (seen * codes[:, places]).sum(1)
    if not by_filter:
        found, wanted = found.sum().expand(len(weight)), wanted.sum().expand(len(weight))
    good = (found > 0) & (wanted > 0)
    return torch.where(good, wanted / torch.where(good, found, 1), otherwise)


def _settle(latent: Tensor, codes: Tensor, zeros: int, by_filter: bool) -> Tensor:
    """Move latent weights across the threshold, no further, until pruning gives them their codes.

    Few have to: a pass meets the sparsity and the norms that it was made for but nearly.
    """
    for _ in range(6):
        norm = torch.linalg.vector_norm(latent, dim=1 if by_filter else None).expand(len(latent))
        limit = (_limit(latent, norm, zeros) * norm).unsqueeze(1)
        too_small = (codes != 0) & (latent.abs() <= limit)
        too_large = (codes == 0) & (latent.abs() >= limit)
        latent = torch.where(too_small, 1.02 * limit * codes, latent)
        latent = torch.where(too_large, 0.98 * limit * latent.sign(), latent)
    return latent


def _relative_error(weight, value, columns, moments) -> float:
    """Squared error of the outputs over their square, both over all filters."""
    error = power = 0.0
    for places, matrix in zip(columns, moments, strict=True):
        lost, own = (weight - value)[:, places], weight[:, places]
        error += float(((lost @ matrix) * lost).sum())
        power += float(((own @ matrix) * own).sum())
    return error / power if power > 0 else 0.0
