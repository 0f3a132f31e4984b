"""Zeros by layer of least error at a sum of bytes."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from .sensitivity import LayerSensitivity

__all__ = [
    "FARTHEST",
    "choose",
    "least_error",
    "lower_hull",
    "meet",
    "predicted_bytes",
    "shifted",
]

FARTHEST = 16.0  # log-odds that zeros are moved by at most: 0.1 % become 99.99 %
_ROUNDS = 16  # to meet a size
_HALVINGS = 60
_LEAST = 1e-30  # error a byte, so that it has a logarithm
_STEEPER = 2.0  # beyond the outermost segments of a curve: where its ends are reached


def choose(layers: Sequence[LayerSensitivity], budget: float) -> dict[str, float]:
    """Sparsity of each layer, by name, of least summed error where bytes sum up to a budget.

    All layers pay the same error for a byte, the Lagrange multiplier (Shoham and Gersho, Efficient
    bit allocation for an arbitrary set of quantizers, 1988), which is bisected. A sum that no
    multiplier gives is approached as far as the curves go.

    Args:
        layers: curves of all layers.
        budget: bytes of all their codes.
    """
    paths = [_path(layer) for layer in layers]

    def at(price: float) -> dict[str, float]:
        return {
            layer.name: float(np.interp(price, *path))
            for layer, path in zip(layers, paths, strict=True)
        }

    low = min((path[0][0] for path in paths), default=0.0)
    high = max((path[0][-1] for path in paths), default=0.0)
    return at(_least(low, high, lambda price: predicted_bytes(layers, at(price)) <= budget))


def least_error(layers: Sequence[LayerSensitivity]) -> dict[str, float]:
    """Sparsity of each layer, by name, of least error at any number of bytes."""
    return {layer.name: layer.sparsities[lower_hull(layer)[0]] for layer in layers}


def predicted_bytes(layers: Sequence[LayerSensitivity], sparsities: dict[str, float]) -> float:
    """Bytes of the codes of all layers, between the measured points along straight lines."""
    return sum(
        float(np.interp(sparsities[each.name], each.sparsities, each.sizes)) for each in layers
    )


def lower_hull(layer: LayerSensitivity) -> list[int]:
    """Indices of the points ``(bytes, error)`` on the lower convex hull, by falling bytes, from
    that of least error on."""
    order = sorted(range(len(layer.sizes)), key=lambda i: (layer.sizes[i], layer.errors[i]))
    hull: list[int] = []
    for i in order:
        if hull and layer.errors[i] >= layer.errors[hull[-1]]:
            continue  # more bytes, and no less error
        while len(hull) > 1 and _price(layer, hull[-1], i) >= _price(layer, hull[-2], hull[-1]):
            hull.pop()
        hull.append(i)
    return hull[::-1]


def shifted(sparsity: float, shift: float) -> float:
    """A sparsity whose log-odds are moved, by the same for all layers; none stays none."""
    if sparsity == 0:
        return 0.0
    odds = math.log(sparsity / (1 - sparsity)) + shift
    return 1 / (1 + math.exp(-odds))


def meet(size: Callable[[float], int], start: int, aim: float, within: float) -> tuple[float, int]:
    """How far zeros have to be moved, in log-odds, for a size, and the size that they have then.

    By secants of its logarithm, held between what was too little and what was too much. A size
    that nothing gives is approached as far as it goes.

    Args:
        size: bytes after zeros are moved so far; the farther, the fewer, or as many.
        start: bytes before.
        aim: bytes that are wanted.
        within: how near to them is near enough.
    """
    shift, found, slope = 0.0, start, 1.0
    low, high = -FARTHEST, FARTHEST
    for _ in range(_ROUNDS):
        if abs(found - aim) <= within:
            break
        low, high = (shift, high) if found > aim else (low, shift)
        step = slope * math.log(found / aim)
        last, shift = shift, shift + step
        if not low < shift < high:
            shift = (low + high) / 2
        previous, found = found, size(shift)
        if found == previous:
            break  # nothing moves any more
        slope = (shift - last) / math.log(previous / found)
    return shift, found


def _price(layer: LayerSensitivity, small: int, large: int) -> float:
    """Error that a byte saves from one point to another of more bytes."""
    saved = layer.errors[small] - layer.errors[large]
    return saved / (layer.sizes[large] - layer.sizes[small])


def _path(layer: LayerSensitivity) -> tuple[list[float], list[float]]:
    """Rising logarithms of prices, and the sparsities that a layer takes at them.

    A segment's price is that of its middle, as it is of a parabola, so that zeros follow the price
    without jumps.
    """
    hull = lower_hull(layer)
    zeros = [layer.sparsities[i] for i in hull]
    prices = [math.log(max(_LEAST, _price(layer, b, a))) for a, b in pairwise(hull)]
    if not prices:
        return [0.0], zeros
    ends = math.log(_STEEPER)
    middles = [(a + b) / 2 for a, b in pairwise(zeros)]
    return [prices[0] - ends, *prices, prices[-1] + ends], [zeros[0], *middles, zeros[-1]]


def _least(low: float, high: float, is_enough: Callable[[float], bool]) -> float:
    """The least number between two that is enough, or the higher one."""
    if is_enough(low):
        return low
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
