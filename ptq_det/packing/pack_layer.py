"""Packs the layers of a model: codes or rounded weights, norms folded in."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..ternary.filters import filter_shape, to_filters
from ..ternary.layers import TernaryLayer, is_layer
from ..ternary.norms import find_norms, norm_factor_and_shift
from .packed_layer import KERNEL, PackedLayer

__all__ = ["first_names", "half_or_single", "pack_layer", "pack_layers", "to_int8"]

_HALF_ERROR = 2.0**-10  # relative error that float16 may have
_NEGLIGIBLE = 2.0**-6  # what is smaller than this times the largest may have the error of that


@torch.no_grad()
def pack_layers(model: nn.Module, float_layers: str) -> dict[str, PackedLayer]:
    """The packed form of every layer (:func:`~ptq_det.ternary.layers.is_layer`) of a model, by
    name."""
    norms = find_norms(model)
    modules = dict(model.named_modules())
    layers = {}
    for name, module in modules.items():
        if is_layer(module) and (isinstance(module, TernaryLayer) or _is_plain(module)):
            norm = norms.get(name)
            layers[name] = pack_layer(module, float_layers, norm, modules.get(norm))
    return layers


def _is_plain(module: nn.Module) -> bool:
    """Whether a layer keeps nothing but weight and bias."""
    return set(dict(module.named_parameters(recurse=False))) <= {"weight", "bias"}


def first_names(model: nn.Module) -> Callable[[str], str]:
    """Maps the name of a tensor to the one under the first name of its module.

    A module that a model has in two places has two names in a state dict.
    """
    first = {id(module): name for name, module in model.named_modules()}
    owners = {
        name: first[id(module)] for name, module in model.named_modules(remove_duplicate=False)
    }

    def under_first_name(name: str) -> str:
        owner, _, key = name.rpartition(".")
        while owner not in owners:  # a tensor's own name may have dots
            owner, _, more = owner.rpartition(".")
            key = f"{more}.{key}"
        return f"{owners[owner]}.{key}"

    return under_first_name


@torch.no_grad()
def pack_layer(
    module: nn.Module, float_layers: str, norm_name: str | None, norm: nn.Module | None
) -> PackedLayer:
    """A layer with its norm folded in.

    Args:
        module: a layer, ternary or not.
        float_layers: "int8" or "float16", what a layer that is not ternary becomes.
        norm_name: name of the norm behind it in the model, or None.
        norm: the norm itself, where it is of the kind that folds.
    """
    transposed = isinstance(module, nn.ConvTranspose2d)
    groups = module.groups if transposed else None
    shape = tuple(module.weight.shape)
    if max(shape[2:], default=1) > KERNEL:
        raise InputError(f"a kernel of {shape[2:]} cannot be packed; the largest is {KERNEL}")
    folded = norm_factor_and_shift(norm)
    bias = None if module.bias is None else module.bias.double()
    if folded is not None:
        factor, shift = folded
        bias = shift if bias is None else bias * factor + shift
    if isinstance(module, TernaryLayer):
        codes, scale = module.codes_and_scale()
        scale, offset = module.ternary.quantizer.linear(scale)
        scale = scale.double() if folded is None else scale.double() * factor
        kind = "ternary" if module.ternary.quantizer.levels == 1 else "quantized"
        values, scale = codes.to(torch.int8), half_or_single(scale)
    else:
        filters = to_filters(module.weight, groups).double()
        filters = filters if folded is None else filters * factor.unsqueeze(1)
        kind, offset = float_layers, 1.0
        values, scale = to_int8(filters) if kind == "int8" else (half_or_single(filters), None)
    values = values.numpy(force=True) if isinstance(values, Tensor) else values
    return PackedLayer(
        kind,
        shape,
        groups,
        np.ascontiguousarray(values.reshape(filter_shape(shape, groups))),
        scale,
        None if bias is None else half_or_single(bias),
        None if folded is None else norm_name,
        None if folded is None else float(norm.eps),
        offset,
        *_activation_of(module),
    )


def _activation_of(module: nn.Module) -> tuple[int, float | None]:
    """Bits and clip of a layer's input, 0 and None where it is in float."""
    pact = getattr(module, "pact", None)
    clip = 0.0 if pact is None else float(pact.clip)
    return (pact.bits, clip) if clip > 0 else (0, None)


def to_int8(filters: Tensor) -> tuple[Tensor, np.ndarray]:
    """Nearest multiples of one scale a filter, whose largest magnitude is 127 times it."""
    scale = half_or_single((filters.abs().amax(1, keepdim=True) / 127).T)
    step = torch.from_numpy(scale.astype(np.float64)).to(filters.device).T
    values = (filters / torch.where(step > 0, step, 1)).round().clamp(-127, 127)
    return values.to(torch.int8), scale


def half_or_single(tensor: Tensor) -> np.ndarray:
    """In float16 where that keeps every value that matters to 2⁻¹⁰, else in float32."""
    tensor = tensor.detach().cpu()
    half = tensor.half()
    error = (half.double() - tensor.double()).abs()
    allowed = tensor.double().abs()
    if allowed.numel():
        allowed = allowed.clamp(min=float(allowed.max()) * _NEGLIGIBLE)
    exact = bool((error <= _HALF_ERROR * allowed).all())
    return (half if exact else tensor.float()).numpy()
