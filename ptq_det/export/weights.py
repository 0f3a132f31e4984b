"""What an exported graph asks of a packed model's layers, and how it is made of them: NumPy alone.

A graph without weights names, for each initializer that it lacks, a layer and what of it is
wanted; :func:`initializers` makes the arrays.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np

from ..packing.integers import Integers, integers
from ..packing.packed_layer import PackedLayer

__all__ = ["PARTS", "SAFE", "Wanted", "initializers"]

SAFE = 64  # two products of an 8-bit uint8 and an int8 of this magnitude are within int16
_MOST = 1 << 30  # magnitude of a bias on integers
_THREADS = 2


@dataclass(frozen=True)
class Wanted:
    """An initializer that a graph lacks.

    Attributes:
        name: in the graph.
        part: a key of ``PARTS``.
        layer: name of the packed layer.
        source: what a step of the layer's uint8 inputs stands for, where it is on integers.
        wide: whether codes may be beyond ``SAFE``.
        pixels: of a transposed convolution on integers: outputs a side for each input, as its
            stride is its kernel.
    """

    name: str
    part: str
    layer: str
    source: float = 0.0
    wide: bool = False
    pixels: int = 0

    def to_json(self) -> list:
        """As a graph has it."""
        return list(asdict(self).values())

    @classmethod
    def from_json(cls, value) -> "Wanted":
        """The reverse of :meth:`to_json`.

        Raises:
            ValueError: it is no such thing.
        """
        match value:
            case [str(), str(part), str(), float(source), bool(), int(pixels)]:
                if part in PARTS and 0 <= source < np.inf and 0 <= pixels <= 8:
                    return cls(*value)
        raise ValueError(f"it wants {str(value)[:80]}")


def initializers(
    wanted: Iterable[Wanted],
    layers: dict[str, Callable[[], PackedLayer]],
    told: Callable[[int], None] = lambda count: None,
) -> dict[str, np.ndarray]:
    """The arrays that a graph lacks, by their names in it.

    Args:
        wanted: what it asks for.
        layers: gives each packed layer by its name; they are decoded in threads.
        told: how many layers are done.

    Raises:
        ValueError: a layer is not there, or lacks what is asked for.
    """
    by_layer: dict[str, list[Wanted]] = {}
    for each in wanted:
        by_layer.setdefault(each.layer, []).append(each)
    missing = by_layer.keys() - layers.keys()
    if missing:
        raise ValueError(f"the packed model has no layer {min(missing)!r}")

    def make(name: str) -> dict[str, np.ndarray]:
        layer = layers[name]()
        return {each.name: PARTS[each.part](layer, each) for each in by_layer[name]}

    arrays: dict[str, np.ndarray] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for count, made in enumerate(pool.map(make, by_layer), 1):
            arrays |= made
            told(count)
    return arrays


def _bias(layer: PackedLayer, wanted: Wanted) -> np.ndarray:
    bias = layer.float_bias()
    return np.zeros(len(layer.values), np.float32) if bias is None else bias


def _integers(layer: PackedLayer, wanted: Wanted) -> Integers:
    """Of a layer whose inputs are known, so that its bias is in steps of input times weight."""
    found = integers(layer)
    if found.reach > SAFE and not wanted.wide:
        found = found.with_7_bits()
    bias = _bias(layer, wanted)
    # A filter beside whose bias its weights vanish would have a bias beyond int32.
    least = np.abs(bias) / np.float32(_MOST * wanted.source)
    vanishes = found.scale < least
    found.codes = np.where(vanishes.reshape(-1, 1, 1, 1), np.int8(0), found.codes)
    found.scale, found.bias = np.where(vanishes, least, found.scale), bias
    if wanted.pixels:
        repeat = wanted.pixels**2
        filters, inputs = found.codes.shape[:2]
        pointwise = found.codes.transpose(0, 2, 3, 1).reshape(filters * repeat, inputs, 1, 1)
        found = Integers(pointwise, found.scale.repeat(repeat), found.bias.repeat(repeat))
    return found


def _codes(layer: PackedLayer, wanted: Wanted) -> np.ndarray:
    codes = _integers(layer, wanted).codes
    return codes if len(layer.shape) > 2 else codes.reshape(layer.shape)


def _scale(layer: PackedLayer, wanted: Wanted) -> np.ndarray:
    return _integers(layer, wanted).scale.astype(np.float32)


def _bias_scale(layer: PackedLayer, wanted: Wanted) -> np.ndarray:
    return (_integers(layer, wanted).scale * np.float32(wanted.source)).astype(np.float32)


def _bias_codes(layer: PackedLayer, wanted: Wanted) -> np.ndarray:
    bias = _integers(layer, wanted).bias.astype(np.float64)
    return np.rint(bias / _bias_scale(layer, wanted)).clip(-_MOST, _MOST).astype(np.int32)


PARTS: dict[str, Callable[[PackedLayer, Wanted], np.ndarray]] = {
    "weight": lambda layer, wanted: layer.weight(),  # float32, of the layer's own shape
    "bias": _bias,  # float32
    "codes": _codes,  # int8
    "scale": _scale,  # float32, a filter
    "bias_codes": _bias_codes,  # int32
    "bias_scale": _bias_scale,  # float32, a filter
}
