"""A layer as the packed file holds it: integers, scales and a bias, its norm folded in.

NumPy alone, so that a file can be decoded where PyTorch is not.
"""

import math
from dataclasses import dataclass

import numpy as np

from ..codes import dequantize
from ..ternary.filters import filter_shape, from_filters
from .codec import decode_codes, encode_codes
from .names import BIAS, CODES, WEIGHT
from .shifts import from_shifts, to_shifts

__all__ = ["CHOSEN_KINDS", "KERNEL", "KINDS", "PackedLayer"]

KINDS = ("ternary", "quantized", "int8", "float16")
KERNEL = 32  # rows or columns that a kernel has at most: contexts grow with their square
CHOSEN_KINDS = KINDS[:2]  # of layers that a quantizer chose


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

    @property
    def is_chosen(self) -> bool:
        """Whether a quantizer chose the layer, so that its zeros are zeros of codes."""
        return self.kind in CHOSEN_KINDS

    @property
    def coded_part(self) -> str:
        """The part of the file that holds its values: coded codes, or plain weights."""
        return WEIGHT if self.scale is None else CODES

    def weight(self) -> np.ndarray:
        """The float32 weight, of the layer's own shape."""
        return np.ascontiguousarray(from_filters(self.filters(), self.shape, self.groups))

    def filters(self) -> np.ndarray:
        """The float32 weight as filters ``(F, N)``."""
        filters = self.values.reshape(len(self.values), -1).astype(np.float32)
        if self.scale is None:
            return filters
        return dequantize(filters, self.scale.astype(np.float32), np.float32(self.offset))

    def float_bias(self) -> np.ndarray | None:
        """The float32 bias, or None."""
        return None if self.bias is None else self.bias.astype(np.float32)

    def to_tensors(self) -> dict[str, np.ndarray]:
        """What the file holds of the layer, by the last part of the name."""
        if self.scale is None:
            tensors = {WEIGHT: self.values, BIAS: self.bias}
        else:
            coded = np.frombuffer(encode_codes(self.values), np.uint8)
            tensors = {CODES: coded, BIAS: self.bias} | to_shifts(self.scale)
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
        _require(kind in KINDS, f"the unknown kind {kind!r}")
        sizes = isinstance(shape, list) and 2 <= len(shape) <= 4
        _require(sizes and all(type(n) is int and n > 0 for n in shape), "a wrong shape")
        fits = groups is None or (type(groups) is int and groups > 0 and len(shape) == 4)
        _require(fits and (groups is None or shape[0] % groups == 0), "wrong groups")
        _require(max(shape[2:], default=1) <= KERNEL, "a kernel that is too large")
        filters = filter_shape(tuple(shape), groups)
        scale, bias = from_shifts(tensors, filters[0]), tensors.get(BIAS)
        floats = (np.float16, np.float32)
        if kind == "float16":
            values = tensors.get(WEIGHT)
            fits = values is not None and values.shape == filters and values.dtype in floats
            _require(fits, "no weight of its shape")
        else:
            coded = tensors.get(CODES)
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
        _require(norm is None or bias is not None, "a folded norm, and no bias of it")
        offset = fields.get("offset", 1.0)
        _require(isinstance(offset, float) and math.isfinite(offset), "a wrong offset")
        bits, clip = fields.get("activation_bits", 0), fields.get("clip")
        fits = clip is None if bits == 0 else isinstance(clip, float) and 0 < clip < math.inf
        _require(type(bits) is int and 0 <= bits <= 8 and fits, "wrong activations")
        return cls(kind, tuple(shape), groups, values, scale, bias, norm, eps, offset, bits, clip)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(f"it has {what}")
