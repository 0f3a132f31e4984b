"""A layer on kernels."""

import ctypes
import weakref

import numpy as np

from .library import CEnd, CMap, Kernels
from .maps import Map, Maps

__all__ = ["KernelLayer"]


class KernelLayer:
    """A convolution of integers: sums of codes, scaled and rounded to the codes of what follows.

    Args:
        codes: int8 ``(F, I, height, width)``.
        scale, bias: float32 ``(F,)``: an output is scale · sum + bias, in units of its code.
        stride, padding, dilation: pairs, rows first.
        low, high: least and largest input.
        dense: multiply; else ternary codes are added.

    Raises:
        ValueError: sums could leave int32, or codes are not ternary.
    """

    def __init__(
        self,
        codes: np.ndarray,
        scale: np.ndarray,
        bias: np.ndarray,
        low: int,
        high: int,
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
        dense: bool = False,
    ):
        self._kernels = Kernels.here()
        self.codes_shape = codes.shape
        filters, inputs, *kernel = codes.shape
        self.filters, self.kernel = filters, kernel
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.scale = np.ascontiguousarray(scale, np.float32)
        self.bias = np.ascontiguousarray(bias, np.float32)
        geometry = [inputs, filters, *kernel, *stride, *padding, *dilation, low, high]
        geometry = np.array(geometry, np.int32)
        codes = np.ascontiguousarray(codes, np.int8)
        made = self._kernels.layer(geometry.ctypes.data, codes.ctypes.data, dense)
        if not made:
            raise ValueError("its sums could leave 32 bits, or its codes are not ternary")
        self._layer = made
        weakref.finalize(self, self._kernels.free, made)

    @property
    def bytes(self) -> int:
        """Memory of its lists or weights."""
        return self._kernels.bytes(self._layer)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what it gives."""
        sizes = []
        for i, size in enumerate((height, width)):
            reach = self.dilation[i] * (self.kernel[i] - 1) + 1
            sizes.append((size + 2 * self.padding[i] - reach) // self.stride[i] + 1)
        return tuple(sizes)

    def __call__(
        self,
        x: Map,
        low: int,
        high: int,
        maps: Maps,
        added: Map | None = None,
        added_scale: float = 1.0,
        threads: int = 1,
        out: Map | None = None,
    ) -> Map:
        """Codes from ``low`` to ``high``: a ReLU where ``low`` is 0.

        Args:
            added: codes of the output's shape that are added, times ``added_scale``.
            out: where to; may be ``added``.
        """
        out = out or Map(
            (x.shape[0], self.filters, *self.output_size(*x.shape[2:])), low, high, maps
        )
        added = None if added is None else ctypes.pointer(added.c)
        end = CEnd(
            self.scale.ctypes.data,
            self.bias.ctypes.data,
            added,
            added_scale,
            0,
            ctypes.pointer(out.c),
        )
        self._run(x, out.c, end, threads)
        return out

    def floats(self, x: Map, threads: int = 1, relu: bool = False) -> np.ndarray:
        """float32 ``(images, F, height, width)``."""
        out = np.empty((x.shape[0], self.filters, *self.output_size(*x.shape[2:])), np.float32)
        shape = CMap(None, out.shape[1], out.shape[0], *out.shape[2:])
        end = CEnd(
            self.scale.ctypes.data, self.bias.ctypes.data, None, 0, relu, None, out.ctypes.data
        )
        self._run(x, shape, end, threads)
        return out

    def _run(self, x: Map, shape: CMap, end: CEnd, threads: int) -> None:
        failed = self._kernels.convolve(self._layer, x.c, shape, end, threads)
        assert not failed, "a map does not fit its layer"
