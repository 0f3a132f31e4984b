"""What is known of a code before it is coded: its level and its context (docs/file_format.md)."""

from dataclasses import dataclass

import numpy as np

__all__ = [
    "CONTEXTS",
    "COUNTED",
    "COUNTS",
    "KINDS",
    "LEVELS",
    "MOST_LEVELS",
    "NEIGHBOURS",
    "PLAIN",
    "STATES",
    "Position",
    "blocks",
    "context_of",
    "grid_of",
    "group",
    "key_and_sign",
    "level_count",
    "level_grid",
    "positions_of",
]

PLAIN, LEVELS, NEIGHBOURS, COUNTS = range(4)  # the schemes; each knows what those before know
STATES, KINDS, COUNTED = 27, 6, 4  # of neighbours' signs, of positions, of nonzeros further off
CONTEXTS = STATES * KINDS * COUNTED
MOST_LEVELS = 2**16 // CONTEXTS - 1  # of a pair of channels; keys have 16 bits
_BLOCK = 1 << 19  # codes of a position that are worked on at a time, so that they stay in the cache


@dataclass(frozen=True)
class Position:
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
        """How many places are beside, and whether there is a diagonal one."""
        return 2 * len(self.beside) + bool(self.diagonal)


def positions_of(height: int, width: int) -> list[Position]:
    """Kernel positions in the order of coding: nearer to the centre first, then row by row."""
    places = [(y, x) for y in range(height) for x in range(width)]
    away = {(y, x): abs(2 * y - height + 1) + abs(2 * x - width + 1) for y, x in places}
    positions, done = [], []
    for y, x in sorted(places, key=lambda place: (away[place], place)):
        beside = [v * width + u for v, u in done if abs(v - y) + abs(u - x) == 1]
        around = [v * width + u for v, u in done if max(abs(v - y), abs(u - x)) == 1]
        diagonal = [i for i in around if i not in beside[:2]]
        others = [v * width + u for v, u in done if v * width + u not in around]
        positions.append(Position(y * width + x, tuple(beside[:2]), tuple(diagonal), tuple(others)))
        done.append((y, x))
    return positions


def _context(
    planes: np.ndarray, position: Position, scheme: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Context of each pair of channels at a position, and the sign to multiply its code by.

    None stands for context 0 and sign 1 everywhere.

    Args:
        planes: int8 codes ``(positions, outputs, inputs)``, of which those before are known.
    """
    if scheme < NEIGHBOURS or position.kind == 0:
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
    context *= KINDS * COUNTED
    context += position.kind * COUNTED
    if scheme == COUNTS and position.others:
        wide = np.int8 if len(position.others) < 128 else np.int16
        count = sum((planes[i] & 1).astype(wide, copy=False) for i in position.others)
        context += np.minimum(count, COUNTED - 1, out=count).astype(np.uint16)
    return context, sign


def key_and_sign(planes, position, scheme, level, levels) -> tuple[np.ndarray, np.ndarray | None]:
    """What each code's probabilities depend on, context · levels + level, and its sign."""
    context, sign = _context(planes, position, scheme)
    if context is None:
        return level, None
    context *= levels
    context += level
    return context, sign


def blocks(outputs: int, inputs: int) -> list[slice]:
    """Output channels that are worked on together."""
    rows = max(1, _BLOCK // max(1, inputs))
    return [slice(start, min(start + rows, outputs)) for start in range(0, outputs, rows)]


def level_grid(rows: np.ndarray, columns: np.ndarray, levels: int) -> np.ndarray:
    """Level of each pair of channels; of one byte where it can, which sorts in half the time."""
    dtype = np.uint8 if levels <= 256 else np.uint16
    return rows.astype(dtype)[:, None] + columns.astype(dtype)[None, :]


def group(key: np.ndarray, scheme: int) -> tuple[np.ndarray | slice, np.ndarray, np.ndarray]:
    """Order that sorts the keys, the keys that occur, and how often each does."""
    key = key.ravel()
    if scheme == PLAIN and len(key):  # all keys are 0, and most of the time goes into sorting
        return slice(None), np.zeros(1, np.int64), np.array([len(key)])
    order = np.argsort(key, kind="stable")
    counts = np.bincount(key)
    present = np.flatnonzero(counts)
    return order, present, counts[present]


def level_count(rows: np.ndarray, columns: np.ndarray) -> int:
    """Number of levels that a pair of channels may have."""
    return int(rows.max(initial=0)) + int(columns.max(initial=0)) + 1


def grid_of(scheme, rows, columns, outputs, inputs, levels) -> np.ndarray:
    """Level of each pair of channels in a scheme; 0 in one without levels."""
    if scheme == PLAIN:
        return np.zeros((outputs, inputs), np.uint8)
    return level_grid(rows, columns, levels)


def context_of(key: int, levels: int, scheme: int) -> int:
    """The context whose logits a key uses; without neighbours all positions share one."""
    return 0 if scheme < NEIGHBOURS else key // levels
