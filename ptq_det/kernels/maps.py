"""Activations as planes of int16 codes, and the memory that they are in."""

import math

import numpy as np

from .library import CLevel, CMap, Kernels

__all__ = ["Map", "Maps", "roi_align"]

_SPAN = 64  # channels that kernels pool at a time
_ROOMY, _SMALL = 2, 1 << 19  # how much more than it needs a map may take, in codes


class Map:
    """Pictures as planes of codes from ``low`` to ``high``, with the margins that kernels read.

    Attributes:
        shape: ``(images, channels, height, width)``.
        low, high: least and largest code.
        memory: int16 ``(channels, plane)``, aligned; what is in a map that was just made is
            arbitrary.
        boxes: how many are in it, where they were pooled into it.
    """

    def __init__(self, shape: tuple[int, int, int, int], low: int, high: int, maps: "Maps"):
        self.shape, self.low, self.high = tuple(shape), low, high
        images, channels, height, width = shape
        self.c = CMap(None, channels, images, height, width, low, high)
        self.boxes, self._maps = 0, maps
        plane = Kernels.here().plane(self.c)
        self._flat = maps.take(channels * plane)
        self._by_pixel: np.ndarray | None = None
        self._hold(self._flat[: channels * plane].reshape(channels, plane))

    def _hold(self, memory: np.ndarray) -> None:
        self.memory, self.c.data = memory, memory.ctypes.data

    def free(self) -> None:
        """Give its memory back to where it came from; the map is not to be used again."""
        self._by_pixel = None
        self._give_back()

    def _give_back(self) -> None:
        if self._flat is not None:
            self._maps.give(self._flat)
            self._flat = self.memory = None

    def _pixels(self) -> np.ndarray:
        """The codes without margins, a view ``(channels, images, height, width)``."""
        images, channels, height, width = self.shape
        lead, row = Kernels.here().lead(self.c), width + 1
        step, plane = self.memory.strides[1], self.memory.strides[0]
        return np.lib.stride_tricks.as_strided(
            self.memory[:, lead:],
            (channels, images, height, width),
            (plane, (height + 1) * row * step, row * step, step),
        )

    def set(self, codes: np.ndarray) -> "Map":
        """Take over codes of the map's shape; gives the map."""
        self.memory[:] = 0
        self._pixels()[:] = codes.swapaxes(0, 1)
        return self

    def set_floats(self, values: np.ndarray, scale: float, threads: int) -> "Map":
        """Take over float32 values times ``scale``, to the nearest code; gives the map."""
        Kernels.here().from_floats(values.ctypes.data, self.c, scale, threads)
        return self

    def copy(self, low: int | None = None) -> "Map":
        """Another map of the same codes, but for those below ``low``, which become that."""
        other = Map(self.shape, self.low if low is None else low, self.high, self._maps)
        np.copyto(other.memory, self.memory)
        if low is not None:
            np.maximum(other.memory, low, out=other.memory)
        return other

    def channels(self, first: int, end: int) -> "Map":
        """A view of some channels; it lives as long as the map."""
        view = object.__new__(Map)
        view.shape = (self.shape[0], end - first, *self.shape[2:])
        view.low, view.high, view._maps, view._flat = self.low, self.high, self._maps, None
        view.c = CMap(None, end - first, self.shape[0], *self.shape[2:], self.low, self.high)
        view._hold(self.memory[first:end])
        return view

    def max_pool(self, window: int, stride: int, padding: int, threads: int) -> "Map":
        """The largest code of each window of codes from 0 on; of a window of 1, any code."""
        sizes = [(size + 2 * padding - window) // stride + 1 for size in self.shape[2:]]
        out = Map((*self.shape[:2], *sizes), self.low, self.high, self._maps)
        Kernels.here().max_pool(self.c, out.c, window, stride, padding, threads)
        return out

    def upsample(self, size: tuple[int, int], threads: int) -> "Map":
        """Each pixel twice in both directions, as far as ``size`` goes."""
        out = Map((*self.shape[:2], *size), self.low, self.high, self._maps)
        Kernels.here().upsample(self.c, out.c, threads)
        return out

    def codes(self) -> np.ndarray:
        """The codes as an array of the map's shape."""
        return np.ascontiguousarray(self._pixels().swapaxes(0, 1))

    def by_pixel(self, threads: int) -> np.ndarray:
        """The codes ``(images, height, width, channels)``, channels up to a multiple of 64; made
        once, and all that the map holds from then on."""
        if self._by_pixel is None:
            images, channels, height, width = self.shape
            shape = (images, height, width, -(-channels // _SPAN) * _SPAN)
            memory = self._maps.take(math.prod(shape))
            self._by_pixel = memory[: math.prod(shape)].reshape(shape)
            Kernels.here().pixels(self.c, self._by_pixel.ctypes.data, threads)
            self._give_back()
            self._flat = memory
        return self._by_pixel


def roi_align(
    levels: list[Map],
    scales: list[float],
    level_of: np.ndarray,
    boxes: np.ndarray,
    samples: int,
    aligned: bool,
    bins: int,
    out: Map,
    flat: bool,
    threads: int,
) -> None:
    """torchvision's ``roi_align`` of boxes that have a level each, rounded to codes.

    Args:
        levels, scales: maps, and the size of a pixel of the picture in their pixels.
        level_of: int32 ``(n,)``: a box's level.
        boxes: float32 ``(n, 5)``: picture, and corners in the picture's pixels.
        samples, aligned: as torchvision's ``sampling_ratio`` and ``aligned``.
        out: a box becomes a picture of it; where ``flat``, a pixel of its only picture, whose
            channels are ``(C, bins, bins)``.
    """
    parts = [level.by_pixel(threads) for level in levels]
    c_levels = (CLevel * len(levels))(
        *(
            CLevel(part.ctypes.data, *part.shape[1:3], scale)
            for part, scale in zip(parts, scales, strict=True)
        )
    )
    level_of = np.ascontiguousarray(level_of, np.int32)
    boxes = np.ascontiguousarray(boxes, np.float32)
    Kernels.here().roi_align(
        c_levels,
        level_of.ctypes.data,
        boxes.ctypes.data,
        len(boxes),
        max(samples, 0),
        aligned,
        bins,
        out.c,
        flat,
        threads,
    )


class Maps:
    """Memory of maps that are not needed any more, for those that come."""

    def __init__(self):
        self._free: list[np.ndarray] = []

    def take(self, count: int) -> np.ndarray:
        """int16 memory of at least so many codes, aligned to 64 bytes."""
        fits = [each for each in self._free if count <= len(each) <= max(_ROOMY * count, _SMALL)]
        if fits:
            return self._out(min(fits, key=len))
        # What is too small makes room for what is larger: memory does not grow.
        smaller = [each for each in self._free if len(each) < count]
        if smaller:
            self._out(max(smaller, key=len))
        raw = np.empty(2 * count + 64, np.uint8)
        offset = -raw.ctypes.data % 64
        return raw[offset : offset + 2 * count].view(np.int16)

    def _out(self, memory: np.ndarray) -> np.ndarray:
        self._free = [each for each in self._free if each is not memory]
        return memory

    def give(self, memory: np.ndarray) -> None:
        """Take memory back."""
        self._free.append(memory)

    def clear(self) -> None:
        """Give the system back all that is free."""
        self._free.clear()

    @property
    def bytes(self) -> int:
        """Of all that is free now."""
        return sum(each.nbytes for each in self._free)
