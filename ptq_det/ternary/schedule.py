"""Which stage an iteration belongs to, and how much is pruned at it: pure functions."""

import enum
import math

__all__ = ["Stage", "pruning_ratio", "stage_at", "stage_starts"]


class Stage(enum.Enum):
    """What the forward pass uses in place of the latent weight."""

    PRUNE = "prune"  # latent weights that survive the pruning, in float
    TERNARY = "ternary"  # codes times scale, codes chosen anew at every step
    FROZEN = "frozen"  # codes times scale, codes as they were when the stage began


def stage_starts(max_iter: int, prune_end: float, freeze_start: float) -> tuple[int, int]:
    """First iterations of the ternary and of the frozen stage.

    Args:
        max_iter: number of iterations of the fine-tuning.
        prune_end: fraction of them that the pruning stage takes.
        freeze_start: fraction after which codes are frozen.
    """
    return math.ceil(prune_end * max_iter), math.ceil(freeze_start * max_iter)


def stage_at(iteration: int, max_iter: int, prune_end: float, freeze_start: float) -> Stage:
    """Stage of an iteration, counted from 0; arguments as of :func:`stage_starts`."""
    ternary, frozen = stage_starts(max_iter, prune_end, freeze_start)
    if iteration >= frozen:
        return Stage.FROZEN
    return Stage.TERNARY if iteration >= ternary else Stage.PRUNE


def pruning_ratio(iteration: int, max_iter: int, prune_end: float) -> float:
    """Fraction of the target sparsity that is reached at an iteration, in [0, 1].

    Cubic: 1 − (1 − i/n)³ over the n iterations of the pruning stage, 1 afterwards
    (Zhu & Gupta, arXiv 1710.01878, equation 1, with s_i = 0 and a step of one iteration).
    """
    end = math.ceil(prune_end * max_iter)
    if iteration >= end:
        return 1.0
    return 1.0 - (1.0 - iteration / end) ** 3
