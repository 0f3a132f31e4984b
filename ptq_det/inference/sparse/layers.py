"""Layers on the kernels: maps of int16 codes from one to the next."""

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import EngineError
from ...kernels import KernelLayer, Map, Maps
from ...packing.integers import integers
from ...packing.packed_layer import PackedLayer
from .steps import Steps

__all__ = ["SparseConv2d", "SparseDeconv2d", "is_sparse", "to_map"]

_FEWEST_ZEROS = 0.3  # where lists of rows are still faster than products (docs/results.md)


def is_sparse(layer: PackedLayer) -> bool:
    """Whether a packed layer is computed by additions."""
    codes = layer.values
    return layer.kind == "ternary" and np.mean(codes == 0) >= _FEWEST_ZEROS


class SparseConv2d(nn.Module):
    """A convolution, or a linear layer as one of a single pixel.

    Args:
        layer: the packed layer.
        geometry: the layer it stands for: stride, padding and dilation; None for a linear layer.
        source: what the codes of the input stand for.
        target: what those of the output are to stand for; None for an output in float32.
        relu: apply a ReLU.
        maps: memory for outputs.
    """

    def __init__(
        self,
        layer: PackedLayer,
        geometry: nn.Conv2d | None,
        source: Steps,
        target: Steps | None,
        relu: bool,
        maps: Maps,
    ):
        super().__init__()
        found = integers(layer)
        self._make(
            found.codes, found.scale, found.bias, layer, geometry, source, target, relu, maps
        )

    def _make(self, codes, scale, bias, layer, geometry, source, target, relu, maps):
        self._target, self._relu, self._maps = target, relu, maps
        step = 1.0 if target is None else target.step
        bias = np.zeros(len(codes), np.float32) if bias is None else bias
        places = {}
        if geometry is not None:
            places = {
                name: tuple(getattr(geometry, name)) for name in ("stride", "padding", "dilation")
            }
        self.kernel = KernelLayer(
            codes,
            scale * np.float32(source.step / step),
            bias / np.float32(step),
            source.low,
            source.high,
            dense=not is_sparse(layer),
            **places,
        )

    def __reduce_ex__(self, protocol):
        """Of copies and pickles: compiled lists cannot be read back."""
        raise EngineError("a model on kernels cannot be copied; load_packed makes another one")

    def forward(
        self, x: Map, added: Map | None = None, represents: Steps | None = None, keep: bool = False
    ) -> Map | Tensor:
        """Codes to codes, or to float32 ``(N, F, height, width)``; frees its inputs.

        Args:
            added: added to what it gives, and overwritten by it.
            represents: what the codes of ``added`` stand for.
            keep: do not free ``x``.
        """
        threads = torch.get_num_threads()
        if self._target is None:
            out = torch.from_numpy(self.kernel.floats(x, threads, self._relu))
        else:
            low = 0 if self._relu else self._target.low
            scale = 1.0 if represents is None else represents.step / self._target.step
            if added is not None:
                added.low, added.high = added.c.low, added.c.high = low, self._target.high
            out = self.kernel(
                x, low, self._target.high, self._maps, added, scale, threads, out=added
            )
        if not keep:
            x.free()
        return out


class SparseDeconv2d(SparseConv2d):
    """A transposed convolution whose stride is its kernel of 2 x 2, up to the shuffle of pixels.

    Its output has four channels for one, which stand for the pixels of a square; the first F of
    them for the upper left one, and so on in the order of reading.

    Raises:
        ValueError: it is of another kind.
    """

    def __init__(self, layer, geometry: nn.ConvTranspose2d, source, target, relu, maps):
        nn.Module.__init__(self)
        rest = (geometry.padding, geometry.output_padding, geometry.dilation, geometry.groups)
        if not geometry.kernel_size == geometry.stride == (2, 2) or rest != (
            (0, 0),
            (0, 0),
            (1, 1),
            1,
        ):
            raise ValueError("a transposed convolution has overlaps, padding or groups")
        found = integers(layer)
        filters, inputs = found.codes.shape[:2]
        codes = found.codes.reshape(filters, inputs, 4).transpose(2, 0, 1).reshape(-1, inputs, 1, 1)
        bias = None if found.bias is None else np.tile(found.bias, 4)
        self._make(codes, np.tile(found.scale, 4), bias, layer, None, source, target, relu, maps)


def to_map(x: Tensor, steps: Steps, maps: Maps) -> Map:
    """float32 ``(N, C, height, width)`` as codes."""
    x = x.contiguous()
    return Map(tuple(x.shape), steps.low, steps.high, maps).set_floats(
        x.numpy(), 1 / steps.step, torch.get_num_threads()
    )
