"""Codes ⇄ bytes: asymmetric numeral systems with contexts, one layer at a time.

Codes are coded kernel position by kernel position, from the centre outwards, each over the pairs of
an output and an input channel. What is known of a code before it is coded sets its probabilities:

- its level: how dense its output and its input channel are (sent along, a few bits a channel);
- its context: the codes of the same kernel that came before. Signs of neighbours are correlated;
  codes are multiplied by the sign of their neighbourhood, so that a neighbourhood and its negative
  share their statistics.

All codes of a position that share level and context are coded in one call. Codes of more bits than
ternary ones are coded as their signs, which are ternary, and then their magnitudes by a histogram.
docs/file_format.md
specifies the bytes; a change of them is another version of the file format.
"""

import struct
from dataclasses import dataclass

import constriction
import numpy as np

__all__ = ["CodecError", "decode_codes", "encode_codes"]

AnsCoder = constriction.stream.stack.AnsCoder
Categorical = constriction.stream.model.Categorical

_HEADER = struct.Struct("<BBBH")
_PLAIN, _LEVELS, _NEIGHBOURS, _COUNTS = range(4)  # the schemes; each knows what those before know
_BLOCK = 1 << 19  # codes of a position that are worked on at a time, so that they stay in the cache
_CODES_PER_BYTE = 400_000  # at the least entropy that the probabilities allow

_STATES, _KINDS, _COUNTED = 27, 6, 4
_CONTEXTS = _STATES * _KINDS * _COUNTED
_MOST_LEVELS = 2**16 // _CONTEXTS - 1  # of a pair of channels; keys have 16 bits


class CodecError(ValueError):
    """Bytes are not the codes of a layer of the expected shape."""


def _probabilities() -> np.ndarray:
    """Probability of a logit byte b, 1 / (1 + 2^((128 − b)/8)), in 65536ths.

    Powers come from square roots and products alone, which IEEE 754 rounds alike everywhere.
    """
    root = 2.0
    for _ in range(3):
        root = np.sqrt(root)  # 2^(1/8), that is, 2^(k/8) reaches 2^±16 over the 256 bytes
    powers = [1.0]
    for _ in range(128):
        powers.append(powers[-1] * root)
    odds = np.array([1.0 / powers[128 - b] if b < 128 else powers[b - 128] for b in range(256)])
    return np.clip(np.round(65536 * odds / (1 + odds)), 1, 65535).astype(np.int64)


_PROBABILITY = _probabilities()


@dataclass(frozen=True)
class _Position:
    """A place in the kernel, and the places coded before it that tell about it.

    Attributes:
        index: row · width + column.
        beside: up to two of its four nearest that are coded already.
        diagonal: others of its eight nearest that are coded already.
        others: all the rest that is coded already.
    """

    index: int
    beside: tuple[int, ...]
    diagonal: tuple[int, ...]
    others: tuple[int, ...]

    @property
    def kind(self) -> int:
        return 2 * len(self.beside) + bool(self.diagonal)


def _positions(height: int, width: int) -> list[_Position]:
    """Kernel positions in the order of coding: nearer to the centre first, then row by row."""
    places = [(y, x) for y in range(height) for x in range(width)]
    away = {(y, x): abs(2 * y - height + 1) + abs(2 * x - width + 1) for y, x in places}
    positions, done = [], []
    for y, x in sorted(places, key=lambda place: (away[place], place)):
        beside = [v * width + u for v, u in done if abs(v - y) + abs(u - x) == 1]
        around = [v * width + u for v, u in done if max(abs(v - y), abs(u - x)) == 1]
        diagonal = [i for i in around if i not in beside[:2]]
        others = [v * width + u for v, u in done if v * width + u not in around]
        positions.append(
            _Position(y * width + x, tuple(beside[:2]), tuple(diagonal), tuple(others))
        )
        done.append((y, x))
    return positions


def _context(
    planes: np.ndarray, position: _Position, scheme: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Context of each pair of channels at a position, and the sign to multiply its code by.

    None stands for context 0 and sign 1 everywhere.

    Args:
        planes: int8 codes ``(positions, outputs, inputs)``, of which those before are known.
    """
    if scheme < _NEIGHBOURS or position.kind == 0:
        return None, None
    first, *second = [planes[i] for i in position.beside] or [np.int8(0)]
    lean, state = 3 * first, 9 * first
    if second:
        lean, state = lean + 3 * second[0], state + 3 * second[0]
    if position.diagonal:
        diagonal = sum(planes[i] for i in position.diagonal)
        diagonal = np.sign(diagonal, out=diagonal)
        lean, state = lean + 2 * diagonal, state + diagonal
    sign = np.where(lean < 0, np.int8(-1), np.int8(1))
    context = (state * sign + 13).astype(np.uint16)
    context *= _KINDS * _COUNTED
    context += position.kind * _COUNTED
    if scheme == _COUNTS and position.others:
        wide = np.int8 if len(position.others) < 128 else np.int16
        count = sum((planes[i] & 1).astype(wide, copy=False) for i in position.others)
        context += np.minimum(count, _COUNTED - 1, out=count).astype(np.uint16)
    return context, sign


def _key(planes, position, scheme, level, levels) -> tuple[np.ndarray, np.ndarray | None]:
    """What each code's probabilities depend on, context · levels + level, and its sign."""
    context, sign = _context(planes, position, scheme)
    if context is None:
        return level, None
    context *= levels
    context += level
    return context, sign


def _blocks(outputs: int, inputs: int) -> list[slice]:
    rows = max(1, _BLOCK // max(1, inputs))
    return [slice(start, min(start + rows, outputs)) for start in range(0, outputs, rows)]


def _level_grid(rows: np.ndarray, columns: np.ndarray, levels: int) -> np.ndarray:
    """Level of each pair of channels; of one byte where it can, which sorts in half the time."""
    dtype = np.uint8 if levels <= 256 else np.uint16
    return rows.astype(dtype)[:, None] + columns.astype(dtype)[None, :]


def _group(key: np.ndarray, scheme: int) -> tuple[np.ndarray | slice, np.ndarray, np.ndarray]:
    """Order that sorts the keys, the keys that occur, and how often each does."""
    key = key.ravel()
    if scheme == _PLAIN and len(key):  # all keys are 0, and most of the time goes into sorting
        return slice(None), np.zeros(1, np.int64), np.array([len(key)])
    order = np.argsort(key, kind="stable")
    counts = np.bincount(key)
    present = np.flatnonzero(counts)
    return order, present, counts[present]


class _Models:
    """Probabilities of the codes by key, from the table of logits that is sent along."""

    def __init__(self, levels: int, units: int):
        self.levels, self.units = levels, units
        self._by_logits: dict[tuple[int, int], Categorical] = {}

    def of(self, level: int, nonzero: int, positive: int) -> Categorical:
        logits = (min(255, nonzero + self.units * level), positive)
        model = self._by_logits.get(logits)
        if model is None:
            n, p = (int(_PROBABILITY[logit]) for logit in logits)
            weights = np.array([n * (65536 - p), (65536 - n) * 65536, n * p], dtype=np.float64)
            model = Categorical(weights / 2.0**32, perfect=False)
            self._by_logits[logits] = model
        return model


def _histogram_model(weights: np.ndarray) -> Categorical:
    return Categorical(weights / weights.sum(), perfect=False)


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
    positions = _positions(height, width)
    magnitudes = np.abs(codes[codes != 0]).astype(np.int32)
    return _encode(planes, positions, _plan(planes, positions), magnitudes)


@dataclass
class _Plan:
    """How a layer is to be coded.

    Attributes:
        rows: level of each output channel.
        columns: level of each input channel.
        units: units of the logit of P(nonzero) by which it rises from level to level.
        logits: uint8 ``(contexts, 2)``: of P(nonzero) at level 0, and of P(positive | nonzero).
    """

    scheme: int
    rows: np.ndarray
    columns: np.ndarray
    units: int
    logits: np.ndarray

    @property
    def levels(self) -> int:
        return _level_count(self.rows, self.columns)


def _level_count(rows: np.ndarray, columns: np.ndarray) -> int:
    return int(rows.max(initial=0)) + int(columns.max(initial=0)) + 1


def _channel_levels(counts: np.ndarray, size: int, step: float) -> np.ndarray:
    """Level of each channel by its number of nonzeros out of ``size``: its logit over ``step``."""
    logit = np.log2((counts + 0.5) / (size - counts + 0.5)) / step
    level = np.round(logit).astype(np.int64)
    return np.minimum(level - level.min(), (_MOST_LEVELS - 1) // 2) if len(level) else level


def _plan(planes: np.ndarray, positions: list[_Position]) -> _Plan:
    """Measure what each scheme would cost and take the cheapest."""
    kernel, outputs, inputs = planes.shape
    # Known neighbours say part of what the density of the channels says: finer steps and the full
    # slope are for layers that have none (measured on ResNet-50).
    step, units = (0.5, 4) if kernel == 1 else (1.0, 6)
    nonzero = planes & 1
    rows = _channel_levels(nonzero.sum((0, 2), dtype=np.int64), kernel * inputs, step)
    columns = _channel_levels(nonzero.sum((0, 1), dtype=np.int64), kernel * outputs, step)
    levels = _level_count(rows, columns)
    full = _COUNTS if kernel > 1 else _LEVELS
    grid = _level_grid(rows, columns, levels)
    table = np.zeros((_CONTEXTS * levels, 3), np.int64)
    for block in _blocks(outputs, inputs):
        for position in positions:
            part = planes[:, block]
            key, sign = _key(part, position, full, grid[block], levels)
            symbols = part[position.index] if sign is None else part[position.index] * sign
            key = key.astype(np.int64).ravel() * 3 + symbols.ravel() + 1
            seen = np.bincount(key, minlength=3).reshape(-1) if len(key) else np.zeros(3, np.int64)
            table.reshape(-1)[: len(seen)] += seen
    table = table.reshape(_STATES, _KINDS, _COUNTED, levels, 3)

    side = _level_bits(rows) + _level_bits(columns)
    none = np.zeros(0, np.int64)
    plain = table.sum((0, 1, 2, 3))[None, None]
    plans = []
    for scheme, counts, slope in (
        (_PLAIN, plain, 0),
        (_LEVELS, table.sum((0, 1, 2))[None], units if kernel == 1 else 8),
        (_NEIGHBOURS, table.sum(2), units),
        (_COUNTS, table, units),
    ):
        if scheme > full:
            break
        counts = counts.reshape(-1, counts.shape[-2], 3)
        logits, bits = _fit(counts, slope)
        bits += 0 if scheme == _PLAIN else side
        if scheme in (_PLAIN, _LEVELS):
            logits = np.repeat(logits, _CONTEXTS, 0)
        elif scheme == _NEIGHBOURS:
            logits = np.repeat(logits, _COUNTED, 0)
        sent = (none, none) if scheme == _PLAIN else (rows, columns)
        plans.append((bits, _Plan(scheme, *sent, slope, logits)))
    return min(plans, key=lambda plan: plan[0])[1]


def _level_bits(levels: np.ndarray) -> float:
    """Bits that the levels of the channels cost."""
    counts = np.bincount(levels) if len(levels) else np.zeros(0)
    used = counts[counts > 0]
    return 8 * len(counts) - float((used * np.log2(used / len(levels))).sum())


def _fit(counts: np.ndarray, units: int) -> tuple[np.ndarray, float]:
    """Logits that code a table of counts in the fewest bits.

    Args:
        counts: ``(contexts, levels, 3)`` numbers of −1, 0 and 1.

    Returns:
        uint8 ``(contexts, 2)`` and the bits, those of the logits included.
    """
    nonzero, total = counts[..., 0] + counts[..., 2], counts.sum(-1)
    rise = units / 8 * np.log(2) * np.arange(counts.shape[1])
    logit = np.full(len(counts), -2.0)
    for _ in range(25):  # Newton's method, a logistic regression with an intercept alone
        p = 1 / (1 + np.exp(-(logit[:, None] + rise)))
        gradient = (nonzero - total * p).sum(1)
        curvature = (total * p * (1 - p)).sum(1) + 1e-6
        logit = np.clip(logit + np.clip(gradient / curvature, -2, 2), -11, 11)
    signs = counts.sum(1)[:, [0, 2]]
    sign_logit = np.log2((signs[:, 1] + 0.01) / (signs[:, 0] + 0.01))
    logits = np.stack([logit / np.log(2), sign_logit], 1)
    logits = np.clip(np.round(128 + 8 * logits), 0, 255).astype(np.uint8)

    at = np.minimum(255, logits[:, :1].astype(np.int64) + units * np.arange(counts.shape[1]))
    p, q = _PROBABILITY[at] / 65536, _PROBABILITY[logits[:, 1]] / 65536
    bits = -(nonzero * np.log2(p) + (total - nonzero) * np.log2(1 - p)).sum()
    bits -= (signs[:, 1] * np.log2(q) + signs[:, 0] * np.log2(1 - q)).sum()
    return logits, float(bits) + 16 * int((total.sum(1) > 0).sum())


def _encode(
    planes: np.ndarray, positions: list[_Position], plan: _Plan, magnitudes: np.ndarray
) -> bytes:
    _, outputs, inputs = planes.shape
    scheme, levels = plan.scheme, plan.levels
    rows, columns = plan.rows, plan.columns
    grid = _grid(scheme, rows, columns, outputs, inputs, levels)
    groups = []  # (key, symbols) in the order of decoding
    for block in _blocks(outputs, inputs):
        for position in positions:
            part = planes[:, block]
            key, sign = _key(part, position, scheme, grid[block], levels)
            symbols = part[position.index] if sign is None else part[position.index] * sign
            order, present, counts = _group(key, scheme)
            symbols = symbols.ravel()[order].astype(np.int32)
            symbols += 1
            ends = np.cumsum(counts).tolist()
            starts = [0, *ends][:-1]
            groups += [
                (k, symbols[start:end])
                for k, start, end in zip(present.tolist(), starts, ends, strict=True)
            ]

    used = list(dict.fromkeys(_context_of(key, levels, scheme) for key, _ in groups))
    models = _Models(levels, plan.units)
    logits = plan.logits.tolist()
    coder = AnsCoder()  # a stack: what is to be decoded first goes in last
    largest = int(magnitudes.max(initial=1))
    if largest > 1:
        histogram = _magnitude_weights(magnitudes)
        coder.encode_reverse(magnitudes - 1, _histogram_model(histogram))
    for key, symbols in reversed(groups):
        pair = logits[_context_of(key, levels, scheme)]
        coder.encode_reverse(symbols, models.of(key % levels, *pair))
    header = [_HEADER.pack(largest, scheme, plan.units, len(used)), plan.logits[used].tobytes()]
    if largest > 1:
        header.append(histogram.astype("<u2").tobytes())
    if scheme != _PLAIN:
        weights = [_level_weights(level) for level in (rows, columns)]
        for level, weight in ((columns, weights[1]), (rows, weights[0])):
            if len(level):
                coder.encode_reverse(level.astype(np.int32), _histogram_model(weight))
        for weight in weights:
            header += [bytes([len(weight)]), weight.astype(np.uint8).tobytes()]
    return b"".join(header) + coder.get_compressed().astype("<u4").tobytes()


def _grid(scheme, rows, columns, outputs, inputs, levels) -> np.ndarray:
    if scheme == _PLAIN:
        return np.zeros((outputs, inputs), np.uint8)
    return _level_grid(rows, columns, levels)


def _context_of(key: int, levels: int, scheme: int) -> int:
    """The context whose logits a key uses; without neighbours all positions share one."""
    return 0 if scheme < _NEIGHBOURS else key // levels


def _level_weights(levels: np.ndarray) -> np.ndarray:
    """Histogram of the levels of the channels, its largest figure scaled to 255, none of them 0."""
    counts = np.bincount(levels, minlength=2).astype(np.float64)
    if not len(levels):
        counts += 1
    return np.maximum(1, np.round(255 * counts / counts.max()))


def _magnitude_weights(magnitudes: np.ndarray) -> np.ndarray:
    """Histogram of magnitudes from 1 on, its largest figure scaled to 65535, none of them 0."""
    counts = np.bincount(magnitudes)[1:].astype(np.float64)
    return np.maximum(1, np.round(65535 * counts / counts.max()))


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
    if scheme != _PLAIN:
        weights = [reader.array(reader.array(1)[0]).astype(np.float64) for _ in range(2)]
        if any(len(weight) < 2 or (weight == 0).any() for weight in weights):
            raise CodecError("the codes of a layer lack levels")
    coder = reader.coder()
    if scheme != _PLAIN:
        sizes = zip(weights, (outputs, inputs), strict=True)
        rows, columns = (coder.decode(_histogram_model(w), size) for w, size in sizes)
    levels = _level_count(rows, columns)
    if scheme >= _NEIGHBOURS and levels > _MOST_LEVELS:
        raise CodecError(f"the codes of a layer have {levels} levels")
    grid = _grid(scheme, rows, columns, outputs, inputs, levels)

    planes = np.zeros((height * width, outputs, inputs), np.int8)
    models = _Models(levels, units)
    logits: dict[int, list[int]] = {}
    positions = _positions(height, width)
    for block in _blocks(outputs, inputs):
        for position in positions:
            part = planes[:, block]
            key, sign = _key(part, position, scheme, grid[block], levels)
            order, present, counts = _group(key, scheme)
            symbols = []
            for k, count in zip(present.tolist(), counts.tolist(), strict=True):
                context = _context_of(k, levels, scheme)
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
        magnitudes = coder.decode(_histogram_model(histogram), int(nonzero.sum()))
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
        if scheme > _COUNTS:
            raise CodecError(f"the codes of a layer have the unknown scheme {scheme}")
        if scheme == _PLAIN and units:
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
