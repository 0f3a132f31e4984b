"""The integers that stand for a packed layer's weights where it is computed on integers."""

import numpy as np

from .packed_layer import PackedLayer

__all__ = ["Integers", "integers"]

_LARGEST = 127  # magnitude of an int8 weight


class Integers:
    """int8 codes ``(F, I, height, width)``, float32 scale ``(F,)`` above 0, and bias ``(F,)``.

    Attributes:
        codes, scale: a weight is their product.
        bias: float32, or None.
    """

    def __init__(self, codes: np.ndarray, scale: np.ndarray, bias: np.ndarray | None):
        self.codes, self.scale, self.bias = codes, scale, bias

    @property
    def reach(self) -> int:
        """Largest magnitude of a code."""
        return int(np.abs(self.codes.astype(np.int16)).max(initial=0))

    def with_7_bits(self) -> "Integers":
        """Codes of half the size, to the nearest, and twice the scale."""
        return Integers(np.rint(self.codes / 2).astype(np.int8), self.scale * 2, self.bias)


def integers(layer: PackedLayer) -> Integers:
    """Those of a packed layer.

    Codes of the file are taken as they are where they are multiples of one scale a filter; others
    are rounded to 127 steps a filter.
    """
    values, bias = layer.values, layer.float_bias()
    linear = layer.scale is not None and len(layer.scale) == 1 and layer.offset == 1
    if linear and values.dtype == np.int8:
        scale = np.broadcast_to(layer.scale[0].astype(np.float32), len(values))
        codes = values * np.where(scale < 0, -1, 1).astype(np.int8).reshape(-1, 1, 1, 1)
        return Integers(codes, np.where(scale == 0, np.float32(1), np.abs(scale)), bias)
    filters = layer.filters()
    scale = np.abs(filters).max(1, initial=0) / np.float32(_LARGEST)
    scale = np.where(scale > 0, scale, np.float32(1))
    codes = np.rint(filters / scale[:, None]).astype(np.int8)
    return Integers(codes.reshape(values.shape), scale, bias)
