"""Layers on integers: uint8 activations, int8 weights, oneDNN's kernels."""

import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...errors import EngineError
from ...packing.integers import integers
from ...packing.packed_layer import PackedLayer
from ...packing.skeleton import bias_of
from ..ranges import Quantization

__all__ = [
    "Int8Conv2d",
    "Int8Deconv2d",
    "Int8Linear",
    "Int8Weights",
    "largest_input",
    "saturates",
]

_ops = torch.ops.onednn
# Height and width that a convolution's weights are laid out for. Laid out for small maps, or for
# none, oneDNN falls back on kernels twenty times slower at some sizes; for large maps at none seen.
_LAYOUT = (200, 336)
_SAFE = 64  # two products of an 8-bit uint8 and an int8 of this magnitude are within int16


@functools.cache
def saturates() -> bool:
    """Whether kernels saturate here where two products of a uint8 and an int8 are beyond int16.

    They do without VNNI, where both are added in int16: 2 · 255 · 127 ≥ 2¹⁵. Rather than ask the
    CPU, it tries: what counts is the kernel.
    """
    weight = torch.full((16, 64, 1, 1), 127, dtype=torch.int8)
    scale, zeros = torch.ones(16), torch.zeros(16, dtype=torch.int32)
    x = torch.full((1, 64, 4, 4), 255, dtype=torch.uint8)
    x = x.contiguous(memory_format=torch.channels_last)
    geometry = [[1, 1], [0, 0], [1, 1], 1]
    weight = _ops.qconv_prepack(weight, scale, 1.0, 0, *geometry, list(x.shape))
    sums = _ops.qconv2d_pointwise(
        x, 1.0, 0, weight, scale, zeros, None, *geometry, 1.0, 0, torch.float32, "none", [], ""
    )
    return not bool((sums == 64 * 255 * 127).all())


def largest_input(weights: "Int8Weights") -> int:
    """The largest code, 255 or 127, that a layer's uint8 inputs may have for its sums to be exact.

    Ternary layers never need the smaller one, nor does any where kernels do not saturate.
    """
    return 127 if saturates() and weights.reach() > _SAFE else 255


class Int8Weights(NamedTuple):
    """int8 codes ``(F, I, height, width)``, float32 scale ``(F,)`` and bias ``(F,)`` or None."""

    codes: Tensor
    scale: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, layer: PackedLayer) -> "Int8Weights":
        """Those of a packed layer."""
        found = integers(layer)
        return cls(torch.from_numpy(found.codes), torch.from_numpy(found.scale), bias_of(layer))

    def reach(self) -> int:
        """Largest magnitude of a code."""
        return int(self.codes.abs().max())

    def with_7_bits(self) -> "Int8Weights":
        """Codes of half the size, to the nearest, and twice the scale."""
        return Int8Weights((self.codes / 2).round().to(torch.int8), self.scale * 2, self.bias)


class _Int8Layer(nn.Module):
    """What the integer layers have in common.

    Where the kernels saturate and the source uses 8 bits (:func:`largest_input` asks for 7, but a
    tensor may have other takers), weights beyond what they can add lose their last bit.

    Args:
        weights: the layer's.
        source: what the uint8 input stands for.
        target: what the uint8 output is to stand for; None for an output in float32.
        relu: apply a ReLU.
    """

    def __init__(
        self, weights: Int8Weights, source: Quantization, target: Quantization | None, relu: bool
    ):
        super().__init__()
        self._source = source
        if source.largest > largest_input(weights):
            weights = weights.with_7_bits()
        self._weight, self._scale, self._bias = weights
        self._zeros = torch.zeros(len(self._scale), dtype=torch.int32)
        self._unary = "relu" if relu else "none"
        self._output = (1.0, 0, torch.float32)
        if target is not None:
            self._output = (target.scale, target.zero_point, torch.uint8)

    def __reduce_ex__(self, protocol):
        """Of copies and pickles: oneDNN's layouts cannot be read back."""
        raise EngineError("a model on integers cannot be copied; load_packed makes another one")

    def _inputs(self, x: Tensor) -> tuple:
        """What every kernel takes first."""
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        source = self._source
        return x, source.scale, source.zero_point, self._weight, self._scale, self._zeros


class Int8Conv2d(_Int8Layer):
    """A convolution.

    Args:
        geometry: the layer it stands for: stride, padding, dilation and groups.
    """

    def __init__(self, weights, geometry: nn.Conv2d, source, target, relu=False):
        super().__init__(weights, source, target, relu)
        places = (geometry.stride, geometry.padding, geometry.dilation)
        self._geometry = [*map(list, places), geometry.groups]
        shape = [1, self._weight.shape[1] * geometry.groups, *_LAYOUT]
        self._weight = _ops.qconv_prepack(
            self._weight, self._scale, source.scale, source.zero_point, *self._geometry, shape
        )

    def forward(self, x: Tensor) -> Tensor:
        """uint8 ``(N, I, height, width)`` to uint8 or float32, channels-last."""
        return _ops.qconv2d_pointwise(
            *self._inputs(x), self._bias, *self._geometry, *self._output, self._unary, [], ""
        )

    def add_to(self, other: Tensor, represents: Quantization, x: Tensor) -> Tensor:
        """The convolution plus a uint8 tensor of its output's shape, which may be overwritten."""
        return _ops.qconv2d_pointwise.binary(
            *self._inputs(x),
            other,
            self._bias,
            *self._geometry,
            *self._output,
            represents.scale,
            represents.zero_point,
            "sum",
            1.0,
            self._unary,
            [],
            "",
        )


class Int8Deconv2d(nn.Module):
    """A transposed convolution whose stride is its kernel: a convolution, and a shuffle of pixels.

    Raises:
        ValueError: it is of another kind.
    """

    def __init__(self, weights, geometry: nn.ConvTranspose2d, source, target, relu=False):
        super().__init__()
        self._factor = geometry.stride[0]
        rest = (geometry.padding, geometry.output_padding, geometry.dilation, geometry.groups)
        square = geometry.kernel_size == geometry.stride == (self._factor, self._factor)
        if not square or rest != ((0, 0), (0, 0), (1, 1), 1):
            raise ValueError("a transposed convolution has overlaps, padding or groups")
        repeat = self._factor**2
        outputs, inputs = weights.codes.shape[:2]
        each = Int8Weights(
            weights.codes.permute(0, 2, 3, 1).reshape(outputs * repeat, inputs, 1, 1),
            weights.scale.repeat_interleave(repeat),
            None if weights.bias is None else weights.bias.repeat_interleave(repeat),
        )
        pointwise = nn.Conv2d(inputs, outputs * repeat, 1, device="meta")
        self.conv = Int8Conv2d(each, pointwise, source, target, relu)

    def forward(self, x: Tensor) -> Tensor:
        """uint8 ``(N, I, height, width)`` to ``(N, F, height · stride, width · stride)``."""
        y = nn.functional.pixel_shuffle(self.conv(x), self._factor)
        return y.contiguous(memory_format=torch.channels_last)


class Int8Linear(_Int8Layer):
    """A linear layer."""

    def __init__(self, weights, source, target, relu=False):
        super().__init__(weights, source, target, relu)
        self._weight = _ops.qlinear_prepack(self._weight.flatten(1), None)

    def forward(self, x: Tensor) -> Tensor:
        """uint8 ``(N, I)`` to uint8 or float32 ``(N, F)``."""
        return _ops.qlinear_pointwise(
            *self._inputs(x), self._bias, *self._output, self._unary, [], ""
        )
