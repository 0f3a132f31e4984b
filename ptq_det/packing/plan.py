"""How a layer's codes are to be coded: measures what each scheme would cost."""

from dataclasses import dataclass

import numpy as np

from .contexts import (
    CONTEXTS,
    COUNTED,
    COUNTS,
    KINDS,
    LEVELS,
    MOST_LEVELS,
    NEIGHBOURS,
    PLAIN,
    STATES,
    Position,
    blocks,
    key_and_sign,
    level_count,
    level_grid,
)
from .probabilities import fit

__all__ = ["Plan", "plan_of"]


@dataclass
class Plan:
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
        return level_count(self.rows, self.columns)


def _channel_levels(counts: np.ndarray, size: int, step: float) -> np.ndarray:
    """Level of each channel by its number of nonzeros out of ``size``: its logit over ``step``."""
    logit = np.log2((counts + 0.5) / (size - counts + 0.5)) / step
    level = np.round(logit).astype(np.int64)
    return np.minimum(level - level.min(), (MOST_LEVELS - 1) // 2) if len(level) else level


def plan_of(planes: np.ndarray, positions: list[Position]) -> Plan:
    """Measure what each scheme would cost and take the cheapest."""
    kernel, outputs, inputs = planes.shape
    # Known neighbours say part of what the density of the channels says: finer steps and the full
    # slope are for layers that have none (measured on ResNet-50).
    step, units = (0.5, 4) if kernel == 1 else (1.0, 6)
    nonzero = planes & 1
    rows = _channel_levels(nonzero.sum((0, 2), dtype=np.int64), kernel * inputs, step)
    columns = _channel_levels(nonzero.sum((0, 1), dtype=np.int64), kernel * outputs, step)
    levels = level_count(rows, columns)
    full = COUNTS if kernel > 1 else LEVELS
    grid = level_grid(rows, columns, levels)
    table = np.zeros((CONTEXTS * levels, 3), np.int64)
    for block in blocks(outputs, inputs):
        for position in positions:
            part = planes[:, block]
            key, sign = key_and_sign(part, position, full, grid[block], levels)
            symbols = part[position.index] if sign is None else part[position.index] * sign
            key = key.astype(np.int64).ravel() * 3 + symbols.ravel() + 1
            seen = np.bincount(key, minlength=3).reshape(-1) if len(key) else np.zeros(3, np.int64)
            table.reshape(-1)[: len(seen)] += seen
    table = table.reshape(STATES, KINDS, COUNTED, levels, 3)

    side = _level_bits(rows) + _level_bits(columns)
    none = np.zeros(0, np.int64)
    plain = table.sum((0, 1, 2, 3))[None, None]
    plans = []
    for scheme, counts, slope in (
        (PLAIN, plain, 0),
        (LEVELS, table.sum((0, 1, 2))[None], units if kernel == 1 else 8),
        (NEIGHBOURS, table.sum(2), units),
        (COUNTS, table, units),
    ):
        if scheme > full:
            break
        counts = counts.reshape(-1, counts.shape[-2], 3)
        logits, bits = fit(counts, slope)
        bits += 0 if scheme == PLAIN else side
        if scheme in (PLAIN, LEVELS):
            logits = np.repeat(logits, CONTEXTS, 0)
        elif scheme == NEIGHBOURS:
            logits = np.repeat(logits, COUNTED, 0)
        sent = (none, none) if scheme == PLAIN else (rows, columns)
        plans.append((bits, Plan(scheme, *sent, slope, logits)))
    return min(plans, key=lambda plan: plan[0])[1]


def _level_bits(levels: np.ndarray) -> float:
    """Bits that the levels of the channels cost."""
    counts = np.bincount(levels) if len(levels) else np.zeros(0)
    used = counts[counts > 0]
    return 8 * len(counts) - float((used * np.log2(used / len(levels))).sum())
