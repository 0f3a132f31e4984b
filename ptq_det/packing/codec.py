"""Ternary codes ⇄ bytes: asymmetric numeral systems with contexts, one layer at a time.

Codes are coded kernel position by kernel position, each position over all pairs of an output and
an input channel. The probability of a code depends on its context: how dense its output and its
input channel are (sent along, a few bits a channel), and inside a kernel the codes to the left and
above, which the decoder has by then. All codes of a position that share a context are coded in one
call. Signs of neighbours are correlated; codes are multiplied by the sign of their neighbourhood,
so that a context and its negative share their statistics.

The bytes of a layer, all integers little-endian::

    u8            scheme: 0 no contexts, 1 densities, 2 densities and neighbours
    u16           number n of probability pairs
    n × (u8, u8)  logits of P(zero) and P(positive | not zero), in order of first use
    u32 …         the words of constriction's AnsCoder; first to be decoded are the density buckets
                  of the output and of the input channels (schemes 1 and 2), then the positions

A change of any of this is another version of the file format.
"""

import struct

import constriction
import numpy as np

__all__ = ["CodecError", "decode_codes", "encode_codes"]

AnsCoder = constriction.stream.stack.AnsCoder
Categorical = constriction.stream.model.Categorical
Uniform = constriction.stream.model.Uniform

_HEADER = struct.Struct("<BH")
_PLAIN, _DENSITY, _NEIGHBOURS = range(3)
_BUCKETS = {_PLAIN: 1, _DENSITY: 8, _NEIGHBOURS: 4}  # of density, for outputs and for inputs
_STATES = 27  # of left, above and diagonal, each −1, 0 or 1


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


def _logit_byte(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The byte whose probability is nearest to part / whole in logits."""
    part, whole = part.astype(float), whole.astype(float)
    logit = 8 * np.log2((part + 0.01) / (whole - part + 0.01))
    return np.clip(np.round(128 + logit), 0, 255).astype(np.uint8)


def _model(zero: int, positive: int) -> Categorical:
    z, p = int(_PROBABILITY[zero]), int(_PROBABILITY[positive])
    weights = np.array([(65536 - z) * (65536 - p), z * 65536, (65536 - z) * p], dtype=np.float64)
    return Categorical(weights / 2.0**32, perfect=False)


def _positions(height: int, width: int):
    return [(y, x) for y in range(height) for x in range(width)]


def _neighbourhood(codes: np.ndarray, y: int, x: int) -> tuple[np.ndarray, np.ndarray]:
    """State ``(F·I,)`` of the neighbours that precede a position, and its sign.

    Left and above count with their signs; the diagonal counts with the sign of all that precede
    and lie within two steps.
    """
    outputs, inputs, _, width = codes.shape
    none = np.zeros((outputs, inputs), np.int8)

    def at(dy, dx):
        inside = y + dy >= 0 and 0 <= x + dx < width
        return codes[:, :, y + dy, x + dx] if inside else none

    left, above = at(0, -1), at(-1, 0)
    diagonal = np.sign(at(-1, -1) + at(-1, 1) + at(0, -2) + at(-2, 0))
    sign = np.where(3 * left + 3 * above + diagonal < 0, -1, 1).astype(np.int8)
    state = ((left * sign + 1) * 3 + above * sign + 1) * 3 + diagonal * sign + 1
    return state.ravel().astype(np.int16), sign.ravel()


def _contexts(scheme, density, codes, y, x) -> tuple[np.ndarray, np.ndarray | None]:
    """Context of each pair of channels at a position, and the sign to multiply codes by."""
    if scheme != _NEIGHBOURS:
        return density, None
    state, sign = _neighbourhood(codes, y, x)
    edge = (y > 0) * 2 + (x > 0)  # positions at an edge know fewer neighbours
    return ((density * _STATES + state) * 4 + edge).astype(np.int16), sign


def _density(rows: np.ndarray, columns: np.ndarray, buckets: int) -> np.ndarray:
    return (rows[:, None] * buckets + columns[None, :]).ravel().astype(np.int16)


def _bucket(counts: np.ndarray, buckets: int) -> np.ndarray:
    """Which of ``buckets`` equally large groups a channel is in, by its number of nonzeros."""
    rank = np.empty(len(counts), np.int64)
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    return (rank * buckets // max(1, len(counts))).astype(np.int32)


def encode_codes(codes: np.ndarray) -> bytes:
    """Code a layer's ternary codes, by the scheme that gives the fewest bytes.

    Args:
        codes: int8 ``(outputs, inputs, height, width)`` in {−1, 0, 1}; 1 × 1 for a linear layer.

    Raises:
        ValueError: another shape, or other values.
    """
    codes = np.ascontiguousarray(codes)
    if codes.ndim != 4 or codes.dtype != np.int8 or ((codes < -1) | (codes > 1)).any():
        raise ValueError("codes must be int8 of four dimensions with values -1, 0 and 1")
    schemes = [_PLAIN, _DENSITY] + ([_NEIGHBOURS] if codes.shape[2] * codes.shape[3] > 1 else [])
    return min((_encode(codes, scheme) for scheme in schemes), key=len)


def _encode(codes: np.ndarray, scheme: int) -> bytes:
    height, width = codes.shape[2:]
    buckets = _BUCKETS[scheme]
    nonzero = codes != 0
    rows = _bucket(nonzero.sum(axis=(1, 2, 3)), buckets)
    columns = _bucket(nonzero.sum(axis=(0, 2, 3)), buckets)
    density = _density(rows, columns, buckets)

    groups = []  # (context, symbols) in the order of decoding
    for y, x in _positions(height, width):
        context, sign = _contexts(scheme, density, codes, y, x)
        symbols = codes[:, :, y, x].ravel()
        symbols = (symbols if sign is None else symbols * sign).astype(np.int32) + 1
        order = np.argsort(context, kind="stable")
        present, counts = np.unique(context, return_counts=True)
        split = np.split(symbols[order], np.cumsum(counts)[:-1]) if len(present) else []
        groups += zip(present.tolist(), split, strict=True)

    totals: dict[int, np.ndarray] = {}
    for context, symbols in groups:
        totals[context] = totals.get(context, 0) + np.bincount(symbols, minlength=3)
    table = np.array(list(totals.values()), dtype=np.int64).reshape(-1, 3)
    pairs = np.stack(
        [
            _logit_byte(table[:, 1], table.sum(1)),
            _logit_byte(table[:, 2], table[:, 0] + table[:, 2]),
        ],
        axis=1,
    )
    models = {c: _model(*pair) for c, pair in zip(totals, pairs.tolist(), strict=True)}
    coder = AnsCoder()  # a stack: what is to be decoded first goes in last
    for context, symbols in reversed(groups):
        coder.encode_reverse(symbols, models[context])
    if scheme != _PLAIN:
        coder.encode_reverse(columns, Uniform(buckets))
        coder.encode_reverse(rows, Uniform(buckets))
    words = coder.get_compressed().astype("<u4")
    return _HEADER.pack(scheme, len(pairs)) + pairs.tobytes() + words.tobytes()


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
    if len(data) < _HEADER.size:
        raise CodecError("the codes of a layer are cut")
    scheme, used = _HEADER.unpack_from(data)
    words_at = _HEADER.size + 2 * used
    if scheme not in _BUCKETS or len(data) < words_at or (len(data) - words_at) % 4:
        raise CodecError("the codes of a layer have an unknown scheme or a wrong length")
    pairs = iter(np.frombuffer(data, np.uint8, 2 * used, _HEADER.size).reshape(-1, 2).tolist())
    words = np.frombuffer(data, "<u4", offset=words_at).astype(np.uint32)
    try:
        coder = AnsCoder(words)
    except ValueError as error:
        raise CodecError(f"the codes of a layer are damaged: {error}") from error

    buckets = _BUCKETS[scheme]
    rows, columns = np.zeros(outputs, np.int32), np.zeros(inputs, np.int32)
    if scheme != _PLAIN:
        rows = coder.decode(Uniform(buckets), outputs)
        columns = coder.decode(Uniform(buckets), inputs)
    density = _density(rows, columns, buckets)

    codes = np.zeros(shape, np.int8)
    models: dict[int, Categorical] = {}
    for y, x in _positions(height, width):
        context, sign = _contexts(scheme, density, codes, y, x)
        order = np.argsort(context, kind="stable")
        present, counts = np.unique(context, return_counts=True)
        symbols = []
        for c, count in zip(present.tolist(), counts.tolist(), strict=True):
            if c not in models:
                pair = next(pairs, None)
                if pair is None:
                    raise CodecError("the codes of a layer lack probabilities")
                models[c] = _model(*pair)
            symbols.append(coder.decode(models[c], count))
        plane = np.empty(outputs * inputs, np.int8)
        if symbols:
            plane[order] = np.concatenate(symbols).astype(np.int8) - 1
        codes[:, :, y, x] = (plane if sign is None else plane * sign).reshape(outputs, inputs)
    if not coder.is_empty() or next(pairs, None) is not None:
        raise CodecError("the codes of a layer are followed by other bytes")
    return codes
