"""A layer as the packed file holds it: integers, scales and a bias, its norm folded in."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..ternary.filters import filter_shape, from_filters, to_filters
from ..ternary.layers import TernaryLayer
from ..ternary.norms import norm_factor_and_shift
from .codec import decode_codes, encode_codes
from .shifts import from_shifts, to_shifts

__all__ = ["PackedLayer", "pack_layer"]

_HALF_ERROR = 2.0**-10  # relative error that float16 may have
_NEGLIGIBLE = 2.0**-6  # what is smaller than this times the largest may have the error of that


@dataclass
class PackedLayer:
    """Weight and bias of a convolution or linear layer, as the packed file holds them.

    Attributes:
        kind: "ternary"; "quantized", of a quantizer with more levels; of layers that no quantizer
            chose, "int8" or "float16".
        shape: of the layer's weight in PyTorch.
        groups: of a transposed convolution, whose outputs are on dimension 1; else None.
        values: filters ``(F, I, height, width)``, F output channels: int8 codes in {−1, 0, 1} or
            [−127, 127], or float16 or float32 weights.
        scale: float16 or float32 ``(S, G)``, as :mod:`ptq_det.quantizers.base` explains; None of
            kind "float16".
        bias: float16 or float32 ``(F,)``, or None.
        norm: name of the norm that is folded in, in the model; or None.
        norm_eps: its ε.
        offset: weight = sign(code) · (magnitude − 1 + offset) · scale; 1 where codes are multiples.
        activation_bits: of the layer's input, 0 where it is in float.
        clip: the largest value of a quantized input.
    """

    kind: str
    shape: tuple[int, ...]
    groups: int | None
    values: np.ndarray
    scale: np.ndarray | None = None
    bias: np.ndarray | None = None
    norm: str | None = None
    norm_eps: float | None = None
    offset: float = 1.0
    activation_bits: int = 0
    clip: float | None = None

    def weight(self) -> Tensor:
        """The float32 weight, of the layer's own shape."""
        return from_filters(self.filters(), self.shape, self.groups)

    def filters(self) -> Tensor:
        """The float32 weight as filters ``(F, N)``."""
        filters = torch.from_numpy(self.values).flatten(1)
        if self.scale is not None:
            scale = torch.from_numpy(self.scale.astype(np.float32))
            positive = scale[0].unsqueeze(1)
            if len(scale) == 2:
                positive = torch.where(filters > 0, positive, scale[1].unsqueeze(1))
            if self.offset != 1:
                filters = filters.sign() * (filters.abs() - 1 + self.offset)
            filters = filters * positive
        return filters.float()

    def float_bias(self) -> Tensor | None:
        """The float32 bias, or None."""
        return None if self.bias is None else torch.from_numpy(self.bias.astype(np.float32))

    def to_tensors(self) -> dict[str, np.ndarray]:
        """What the file holds of the layer, by the last part of the name."""
        if self.scale is None:
            tensors = {"weight": self.values, "bias": self.bias}
        else:
            coded = np.frombuffer(encode_codes(self.values), np.uint8)
            tensors = {"codes": coded, "bias": self.bias} | to_shifts(self.scale)
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    def to_metadata(self) -> dict:
        """What the file's header says of the layer."""
        fields = {"kind": self.kind, "shape": list(self.shape), "groups": self.groups}
        fields |= {"norm": self.norm, "norm_eps": self.norm_eps}
        fields["offset"] = None if self.offset == 1 else self.offset
        fields |= {"activation_bits": self.activation_bits or None, "clip": self.clip}
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def from_file(cls, fields: dict, tensors: dict[str, np.ndarray]) -> "PackedLayer":
        """The reverse of :meth:`to_metadata` and :meth:`to_tensors`.

        Raises:
            ValueError: they do not fit each other.
        """
        shape = fields.get("shape")
        kind, groups = fields.get("kind"), fields.get("groups")
        kinds = ("ternary", "quantized", "int8", "float16")
        _require(kind in kinds, f"the unknown kind {kind!r}")
        sizes = isinstance(shape, list) and 2 <= len(shape) <= 4
        _require(sizes and all(type(n) is int and n > 0 for n in shape), "a wrong shape")
        fits = groups is None or (type(groups) is int and groups > 0 and len(shape) == 4)
        _require(fits and (groups is None or shape[0] % groups == 0), "wrong groups")
        filters = filter_shape(tuple(shape), groups)
        scale, bias = from_shifts(tensors, filters[0]), tensors.get("bias")
        floats = (np.float16, np.float32)
        if kind == "float16":
            values = tensors.get("weight")
            fits = values is not None and values.shape == filters and values.dtype in floats
            _require(fits, "no weight of its shape")
        else:
            coded = tensors.get("codes")
            _require(coded is not None and coded.dtype == np.uint8, "no codes")
            values = decode_codes(coded.tobytes(), filters)
            _require(kind != "ternary" or np.abs(values).max() <= 1, "codes that are not ternary")
            fits = scale is not None and scale.dtype in floats and scale.ndim == 2
            fits = fits and scale.shape[0] in (1, 2) and scale.shape[1] in (1, filters[0])
            _require(fits, "no scale of its shape")
        fits = bias is None or (bias.dtype in floats and bias.shape == (filters[0],))
        _require(fits, "a bias of another shape")
        norm, eps = fields.get("norm"), fields.get("norm_eps")
        _require(norm is None or (isinstance(norm, str) and isinstance(eps, float)), "a wrong norm")
        offset = fields.get("offset", 1.0)
        _require(isinstance(offset, float) and math.isfinite(offset), "a wrong offset")
        bits, clip = fields.get("activation_bits", 0), fields.get("clip")
        fits = clip is None if bits == 0 else isinstance(clip, float) and 0 < clip < math.inf
        _require(type(bits) is int and 0 <= bits <= 8 and fits, "wrong activations")
        return cls(kind, tuple(shape), groups, values, scale, bias, norm, eps, offset, bits, clip)


@torch.no_grad()
def pack_layer(
    module: nn.Module, float_layers: str, norm_name: str | None, norm: nn.Module | None
) -> PackedLayer:
    """A layer with its norm folded in.

    Args:
        module: Conv2d, ConvTranspose2d or Linear, ternary or not.
        float_layers: "int8" or "float16", what a layer that is not ternary becomes.
        norm_name: name of the norm behind it in the model, or None.
        norm: the norm itself, where it is of the kind that folds.
    """
    transposed = isinstance(module, nn.ConvTranspose2d)
    groups = module.groups if transposed else None
    shape = tuple(module.weight.shape)
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
        values, scale = codes.to(torch.int8), _half_or_single(scale)
    else:
        filters = to_filters(module.weight, groups).double()
        filters = filters if folded is None else filters * factor.unsqueeze(1)
        kind, offset = float_layers, 1.0
        values, scale = _to_int8(filters) if kind == "int8" else (_half_or_single(filters), None)
    values = values.numpy(force=True) if isinstance(values, Tensor) else values
    return PackedLayer(
        kind,
        shape,
        groups,
        np.ascontiguousarray(values.reshape(filter_shape(shape, groups))),
        scale,
        None if bias is None else _half_or_single(bias),
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


def _to_int8(filters: Tensor) -> tuple[Tensor, np.ndarray]:
    """Nearest multiples of one scale a filter, whose largest magnitude is 127 times it."""
    scale = _half_or_single((filters.abs().amax(1, keepdim=True) / 127).T)
    step = torch.from_numpy(scale.astype(np.float64)).to(filters.device).T
    values = (filters / torch.where(step > 0, step, 1)).round().clamp(-127, 127)
    return values.to(torch.int8), scale


def _half_or_single(tensor: Tensor) -> np.ndarray:
    """In float16 where that keeps every value that matters to 2⁻¹⁰, else in float32."""
    tensor = tensor.detach().cpu()
    half = tensor.half()
    error = (half.double() - tensor.double()).abs()
    allowed = tensor.double().abs()
    if allowed.numel():
        allowed = allowed.clamp(min=float(allowed.max()) * _NEGLIGIBLE)
    exact = bool((error <= _HALF_ERROR * allowed).all())
    return (half if exact else tensor.float()).numpy()


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(f"it has {what}")
