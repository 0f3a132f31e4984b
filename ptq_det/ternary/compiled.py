"""Forward weights where PyTorch takes a model apart: ``torch.compile`` gets operators that it does
not look into, ``torch.jit.trace`` constants."""

import contextlib
import itertools
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from ..errors import InputError

__all__ = [
    "EXPORTED",
    "SCRIPTED",
    "compiled_clip",
    "compiled_forward_weight",
    "give_number",
    "untraced",
]

SCRIPTED = (
    "The model's ternary layers become plain ones, as torch.jit.script takes them; script a copy "
    "of a model that is to be trained."
)

EXPORTED = (
    "torch.export takes plain layers: ptq_det.make_plain(model) puts them in the place of ternary "
    "ones, with the same outputs (of a copy, if the model is to be trained)."
)

_OF_OTHERS = (
    "Compiled code with weights that are not the model's own (torch.func.functional_call) does not "
    'find their threshold, as TERNARY.THRESHOLD "network" looks at all layers; call the model '
    'without torch.compile, or train it with THRESHOLD "layer".'
)

# Operators take tensors; one with a number stands for a module, so that such share their code.
_modules: WeakValueDictionary[int, Any] = WeakValueDictionary()
_numbers = itertools.count()


def give_number(module: nn.Module) -> None:
    """Give a layer, a PACT, or a copy of one, the number by which compiled code finds it."""
    number = next(_numbers)
    module.number = torch.tensor(number, device="cpu")
    _modules[number] = module


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
    """The forward weight that the layer with this number has for ``weight`` and ``scale``.

    A copy, since compiled code takes memory of what it does not need any more.

    Raises:
        InputError: they are not the layer's own, and the threshold is the network's.
    """
    layer = _modules[int(number)]
    if layer.ternary.shares_threshold and weight.data_ptr() != layer.weight.data_ptr():
        raise InputError(_OF_OTHERS)
    if layer.ternary.cache.is_used:
        layer.ternary.cache.clear()
    return torch.empty_like(weight).copy_(layer.value_and_rule(weight, scale)[0])


@compiled_forward_weight.register_fake
def _(weight, scale, number):
    return torch.empty_like(weight)


@torch.library.custom_op("ptq_det::latent_gradient", mutates_args=())
def _latent_gradient(
    grad: Tensor, weight: Tensor, scale: Tensor | None, number: Tensor
) -> list[Tensor]:
    grads = _modules[int(number)].gradients(grad, weight, scale)
    like = (grad, scale) if scale is not None else (grad,)
    return [torch.empty_like(b).copy_(a) for a, b in zip(grads, like, strict=False)]


@_latent_gradient.register_fake
def _(grad, weight, scale, number):
    return [torch.empty_like(each) for each in (grad, scale) if each is not None]


def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):
    weight_grad, *scale_grad = _latent_gradient(grad, *ctx.saved_tensors)
    return weight_grad, scale_grad[0] if scale_grad else None, None


compiled_forward_weight.register_autograd(_backward, setup_context=_keep)


@torch.library.custom_op("ptq_det::clip", mutates_args=())
def compiled_clip(x: Tensor, clip: Tensor, number: Tensor, training: bool) -> Tensor:
    """The clip of the PACT with this number for its input ``x``; in training it starts there."""
    pact = _modules[int(number)]
    if training and not pact.has_started():
        pact.start(x)
        return pact.clip.detach().clone()
    return clip.clone()


@compiled_clip.register_fake
def _(x, clip, number, training):
    return torch.empty_like(clip)


def _clip_backward(ctx, grad):
    return None, grad, None, None


compiled_clip.register_autograd(_clip_backward)
