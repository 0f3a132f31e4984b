"""Autograd of the forward weight: what is used in place of a latent weight, and its gradient."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ..quantizers import Quantizer, dequantize, group_mean, group_sum
from .schedule import Stage
from .steps import optimizer_steps

__all__ = ["Decay", "forward_weight", "substitute"]


class Decay:
    """Decay of the refined straight-through estimator, as a term of the latent weight's gradient.

    It is added once for each step, however many backward passes gather gradients for it; once more
    where mixed precision gave up a step, which changes its loss scale.

    Args:
        strength: λ.
        toward_codes: λ(w − ŵ), which draws a latent weight to its forward weight; else λw.
    """

    def __init__(self, strength: float, toward_codes: bool):
        self.strength = strength
        self.toward_codes = toward_codes
        self.loss_scale = 1.0  # of mixed precision: what the loss was multiplied by
        self._is_due, self._last = True, None

    def start(self, version: int) -> None:
        """Called at the start of a backward pass through the layer.

        Args:
            version: of the latent weight, which a step in place counts up (not a fused one).
        """
        now = (optimizer_steps(), version, self.loss_scale)
        self._is_due, self._last = now != self._last, now

    def add_to(self, grad: Tensor, latent: Tensor, forward: Tensor) -> Tensor:
        """``grad`` plus the decay; all ``(F, N)``."""
        if self.strength == 0 or not self._is_due:
            return grad
        strength = self.strength * self.loss_scale
        grad = torch.add(grad, latent, alpha=strength)
        return grad.sub_(forward, alpha=strength) if self.toward_codes else grad


class _Substitute(Function):
    generate_vmap_rule = True  # for torch.func, e.g. gradients of each sample

    @staticmethod
    def forward(rule, value, weight, scale):
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.rule = inputs[0]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return None, None, *ctx.rule(grad)


def substitute(
    value: Tensor, weight: Tensor, scale: Tensor | None, rule: Callable[[Tensor], tuple]
) -> Tensor:
    """``value`` in the forward pass; in the backward pass ``rule`` maps its gradient to those of
    ``weight`` and ``scale``."""
    return _Substitute.apply(rule, value, weight, scale)


def forward_weight(
    latent: Tensor,
    codes: Tensor,
    learned_scale: Tensor | None,
    quantizer: Quantizer,
    stage: Stage,
    decay: Decay,
) -> tuple[Tensor, Callable]:
    """Forward weight of a stage, and the rule for its gradient (docs/method.md has the formulas).

    Args:
        latent: latent weight ``(F, N)``, detached.
        codes: its codes ``(F, N)``; may be overwritten.
        learned_scale: detached parameter ``(S, G)`` of a quantizer that learns its scale.
        quantizer: makes the scale.
        stage: what the forward weight is made of.
        decay: decay term of the gradient.

    Returns:
        The forward weight ``(F, N)`` and a function from its gradient to the latent weight's and
        the learned scale's (None without one).
    """
    no_gradient = None if learned_scale is None else torch.zeros_like(learned_scale)
    groups = (quantizer.by_filter, quantizer.signs)

    if stage is Stage.FROZEN:

        def frozen_rule(grad):
            # Only the scale moves: the same step for every weight of a group keeps the latent
            # weight a multiple of its codes.
            return dequantize(codes, group_mean(grad, codes, *groups)), no_gradient

        scale = quantizer.scale_of_quantized(latent, codes)
        return quantizer.dequantize(codes, scale), frozen_rule

    def through(grad, value):
        grad = grad * (value != 0) if quantizer.masks_gradient else grad
        return decay.add_to(grad, latent, value)

    if stage is Stage.PRUNE and quantizer.prunes_first:
        value = codes.abs_().clamp_(max=1).mul_(latent)
        return value, lambda grad: (through(grad, value), no_gradient)

    if learned_scale is None:
        value = quantizer.dequantize(codes, quantizer.scale(latent, codes), overwrite=True)
        return value, lambda grad: (through(grad, value), None)

    value = dequantize(codes, learned_scale)

    def learned_rule(grad):
        latent_grad = quantizer.latent_gradient(grad, codes, learned_scale)
        return decay.add_to(latent_grad, latent, value), group_sum(grad, codes, *groups)

    return value, learned_rule
