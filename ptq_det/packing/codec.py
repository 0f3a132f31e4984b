"""Codes ⇄ bytes: asymmetric numeral systems with contexts, one layer at a time.

Codes are coded kernel position by kernel position, from the centre outwards, each over the pairs of
an output and an input channel. What is known of a code before it is coded sets its probabilities:

- its level: how dense its output and its input channel are (sent along, a few bits a channel);
- its context: the codes of the same kernel that came before. Signs of neighbours are correlated;
  codes are multiplied by the sign of their neighbourhood, so that a neighbourhood and its negative
  share their statistics.

All codes of a position that share level and context are coded in one call. Codes of more bits than
ternary ones are coded as their signs, which are ternary, and then their magnitudes by a histogram.
docs/file_format.md specifies the bytes; a change of them is another version of the file format.
"""

import struct

import constriction
import numpy as np

from .contexts import (
    COUNTS,
    MOST_LEVELS,
    NEIGHBOURS,
    PLAIN,
    Position,
    blocks,
    context_of,
    grid_of,
    group,
    key_and_sign,
    level_count,
    positions_of,
)
from .plan import Plan, plan_of
from .probabilities import (
    Models,
    histogram_model,
    level_weights,
    magnitude_weights,
)

__all__ = ["CodecError", "decode_codes", "encode_codes"]

AnsCoder = constriction.stream.stack.AnsCoder

_HEADER = struct.Struct("<BBBH")
_CODES_PER_BYTE = 400_000  # at the least entropy that the probabilities allow


class CodecError(ValueError):
    """Bytes are not the codes of a layer of the expected shape."""


def encode_codes(codes: np.ndarray) -> bytes:
    """Code a layer's codes, by the scheme that gives the fewest bytes.

    Args:
        codes: int8 ``(outputs, inputs, height, width)`` of at least −127; ternary ones are in
            {−1, 0, 1}. Height and width are 1 for a linear layer.

    Raises:
        ValueError: another shape, or other values.
    """
    if codes.ndim != 4 or codes.dtype != np.int8 or (codes == -128).any():
        raise ValueError("codes must be int8 of four dimensions, and none of them -128")
    outputs, inputs, height, width = codes.shape
    signs = np.sign(codes).reshape(outputs, inputs, height * width)
    planes = np.ascontiguousarray(signs.transpose(2, 0, 1))
    positions = positions_of(height, width)
    magnitudes = np.abs(codes[codes != 0]).astype(np.int32)
    return _encode(planes, positions, plan_of(planes, positions), magnitudes)


def _encode(
    planes: np.ndarray, positions: list[Position], plan: Plan, magnitudes: np.ndarray
) -> bytes:
    _, outputs, inputs = planes.shape
    scheme, levels = plan.scheme, plan.levels
    rows, columns = plan.rows, plan.columns
    grid = grid_of(scheme, rows, columns, outputs, inputs, levels)
    groups = []  # (key, symbols) in the order of decoding
    for block in blocks(outputs, inputs):
        for position in positions:
            part = planes[:, block]
            key, sign = key_and_sign(part, position, scheme, grid[block], levels)
            symbols = part[position.index] if sign is None else part[position.index] * sign
            order, present, counts = group(key, scheme)
            symbols = symbols.ravel()[order].astype(np.int32)
            symbols += 1
            ends = np.cumsum(counts).tolist()
            starts = [0, *ends][:-1]
            groups += [
                (k, symbols[start:end])
                for k, start, end in zip(present.tolist(), starts, ends, strict=True)
            ]

    used = list(dict.fromkeys(context_of(key, levels, scheme) for key, _ in groups))
    models = Models(levels, plan.units)
    logits = plan.logits.tolist()
    coder = AnsCoder()  # a stack: what is to be decoded first goes in last
    largest = int(magnitudes.max(initial=1))
    if largest > 1:
        histogram = magnitude_weights(magnitudes)
        coder.encode_reverse(magnitudes - 1, histogram_model(histogram))
    for key, symbols in reversed(groups):
        pair = logits[context_of(key, levels, scheme)]
        coder.encode_reverse(symbols, models.of(key % levels, *pair))
    header = [_HEADER.pack(largest, scheme, plan.units, len(used)), plan.logits[used].tobytes()]
    if largest > 1:
        header.append(histogram.astype("<u2").tobytes())
    if scheme != PLAIN:
        weights = [level_weights(level) for level in (rows, columns)]
        for level, weight in ((columns, weights[1]), (rows, weights[0])):
            if len(level):
                coder.encode_reverse(level.astype(np.int32), histogram_model(weight))
        for weight in weights:
            header += [bytes([len(weight)]), weight.astype(np.uint8).tobytes()]
    return b"".join(header) + coder.get_compressed().astype("<u4").tobytes()


def decode_codes(data: bytes, shape: tuple[int, int, int, int]) -> np.ndarray:
    """The codes that :func:`encode_codes` made bytes of.

    Args:
        data: the bytes.
        shape: outputs, inputs, height and width of the layer.

    Returns:
        int8 codes of that shape.

    Raises:
        CodecError: the bytes cannot be the codes of a layer of this shape. Damage that still
            decodes gives other codes: a digest has to find it.
    """
    outputs, inputs, height, width = shape
    if outputs * inputs * height * width > _CODES_PER_BYTE * len(data):
        raise CodecError("the codes of a layer are too few bytes for its shape")
    reader = _Reader(data)
    largest, scheme, units, used = reader.header()
    pairs = iter(reader.array(2 * used).reshape(-1, 2).tolist())
    histogram = reader.array(2 * largest if largest > 1 else 0).view("<u2").astype(np.float64)
    if (histogram == 0).any():
        raise CodecError("the codes of a layer lack magnitudes")
    rows = columns = np.zeros(0, np.int64)
    if scheme != PLAIN:
        weights = [reader.array(reader.array(1)[0]).astype(np.float64) for _ in range(2)]
        if any(len(weight) < 2 or (weight == 0).any() for weight in weights):
            raise CodecError("the codes of a layer lack levels")
    coder = reader.coder()
    if scheme != PLAIN:
        sizes = zip(weights, (outputs, inputs), strict=True)
        rows, columns = (coder.decode(histogram_model(w), size) for w, size in sizes)
    levels = level_count(rows, columns)
    if scheme >= NEIGHBOURS and levels > MOST_LEVELS:
        raise CodecError(f"the codes of a layer have {levels} levels")
    grid = grid_of(scheme, rows, columns, outputs, inputs, levels)

    planes = np.zeros((height * width, outputs, inputs), np.int8)
    models = Models(levels, units)
    logits: dict[int, list[int]] = {}
    positions = positions_of(height, width)
    for block in blocks(outputs, inputs):
        for position in positions:
            part = planes[:, block]
            key, sign = key_and_sign(part, position, scheme, grid[block], levels)
            order, present, counts = group(key, scheme)
            symbols = []
            for k, count in zip(present.tolist(), counts.tolist(), strict=True):
                context = context_of(k, levels, scheme)
                if context not in logits:
                    pair = next(pairs, None)
                    if pair is None:
                        raise CodecError("the codes of a layer lack probabilities")
                    logits[context] = pair
                symbols.append(coder.decode(models.of(k % levels, *logits[context]), count))
            if not symbols:
                continue
            plane = np.empty(key.size, np.int8)
            plane[order] = np.concatenate(symbols).astype(np.int8)
            plane = plane.reshape(part.shape[1:])
            plane -= 1
            if sign is not None:
                plane *= sign
            part[position.index] = plane
    codes = np.ascontiguousarray(planes.transpose(1, 2, 0)).reshape(shape)
    if largest > 1:
        nonzero = codes != 0
        magnitudes = coder.decode(histogram_model(histogram), int(nonzero.sum()))
        codes[nonzero] *= (magnitudes + 1).astype(np.int8)
    if not coder.is_empty() or next(pairs, None) is not None:
        raise CodecError("the codes of a layer are followed by other bytes")
    return codes


class _Reader:
    """Reads the parts of a layer's bytes, and says where they end too soon."""

    def __init__(self, data: bytes):
        self._data, self._at = data, 0

    def array(self, count: int) -> np.ndarray:
        start, self._at = self._at, self._at + int(count)
        if self._at > len(self._data):
            raise CodecError("the codes of a layer are cut")
        return np.frombuffer(self._data, np.uint8, int(count), start)

    def header(self) -> tuple[int, int, int, int]:
        largest, scheme, units, used = _HEADER.unpack(self.array(_HEADER.size).tobytes())
        if not 1 <= largest <= 127:
            raise CodecError(f"the codes of a layer have the impossible magnitude {largest}")
        if scheme > COUNTS:
            raise CodecError(f"the codes of a layer have the unknown scheme {scheme}")
        if scheme == PLAIN and units:
            raise CodecError("the codes of a layer have levels that their scheme does not know")
        return largest, scheme, units, used

    def coder(self) -> AnsCoder:
        rest = self._data[self._at :]
        if len(rest) % 4:
            raise CodecError("the codes of a layer have a wrong length")
        try:
            return AnsCoder(np.frombuffer(rest, "<u4").astype(np.uint32))
        except ValueError as error:
            raise CodecError(f"the codes of a layer are damaged: {error}") from error
