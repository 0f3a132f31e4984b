"""Forward weights where PyTorch takes a model apart: ``torch.compile`` gets operators that it does
not look into, ``torch.jit.trace`` constants."""

import contextlib
import itertools
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

__all__ = ["EXPORTED", "SCRIPTED", "compiled_forward_weight", "give_number", "untraced"]

SCRIPTED = (
    "The model's ternary layers become plain ones, as torch.jit.script takes them; script a copy "
    "of a model that is to be trained."
)

EXPORTED = (
    "torch.export takes plain layers: ptq_det.make_plain(model) puts them in the place of ternary "
    "ones, with the same outputs (of a copy, if the model is to be trained)."
)

# Operators take tensors; one with a number stands for a layer, so that layers share their code.
_layers: WeakValueDictionary[int, Any] = WeakValueDictionary()
_numbers = itertools.count()


def give_number(layer: nn.Module) -> None:
    """Give a layer, or a copy of one, the number by which compiled code finds it."""
    number = next(_numbers)
    layer.number = torch.tensor(number, device="cpu")
    _layers[number] = layer


@contextlib.contextmanager
def untraced():
    """What is computed inside is a constant to ``torch.jit.trace``, for whose check it is the same
    whether it was computed now or before."""
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)


@torch.library.custom_op("ptq_det::forward_weight", mutates_args=())
def compiled_forward_weight(weight: Tensor, scale: Tensor | None, number: Tensor) -> Tensor:
    """The forward weight of the layer with this number, which ``weight`` and ``scale`` are of.

    A copy, since compiled code takes memory of what it does not need any more.
    """
    layer = _layers[int(number)]
    if layer.ternary.cache.is_used:
        layer.ternary.cache.clear()
    return torch.empty_like(weight).copy_(layer.value_and_rule()[0])


@compiled_forward_weight.register_fake
def _(weight, scale, number):
    return torch.empty_like(weight)


@torch.library.custom_op("ptq_det::latent_gradient", mutates_args=())
def _latent_gradient(grad: Tensor, scale: Tensor | None, number: Tensor) -> list[Tensor]:
    grads = _layers[int(number)].gradients(grad)
    like = (grad, scale) if scale is not None else (grad,)
    return [torch.empty_like(b).copy_(a) for a, b in zip(grads, like, strict=False)]


@_latent_gradient.register_fake
def _(grad, scale, number):
    return [torch.empty_like(each) for each in (grad, scale) if each is not None]


def _keep(ctx, inputs, output):
    _, ctx.scale, ctx.number = inputs


def _backward(ctx, grad):
    weight_grad, *scale_grad = _latent_gradient(grad, ctx.scale, ctx.number)
    return weight_grad, scale_grad[0] if scale_grad else None, None


compiled_forward_weight.register_autograd(_backward, setup_context=_keep)
