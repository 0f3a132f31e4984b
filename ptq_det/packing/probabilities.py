"""Probabilities of symbols, from tables of bytes that are sent along (docs/file_format.md)."""

import constriction
import numpy as np

__all__ = ["PROBABILITY", "Models", "fit", "histogram_model", "level_weights", "magnitude_weights"]

Categorical = constriction.stream.model.Categorical


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


PROBABILITY = _probabilities()


class Models:
    """Probabilities of the codes by key, from the table of logits that is sent along."""

    def __init__(self, levels: int, units: int):
        self.levels, self.units = levels, units
        self._by_logits: dict[tuple[int, int], Categorical] = {}

    def of(self, level: int, nonzero: int, positive: int) -> Categorical:
        """Model of the symbols 0, 1, 2 (negative, zero, positive) at a level."""
        logits = (min(255, nonzero + self.units * level), positive)
        model = self._by_logits.get(logits)
        if model is None:
            n, p = (int(PROBABILITY[logit]) for logit in logits)
            weights = np.array([n * (65536 - p), (65536 - n) * 65536, n * p], dtype=np.float64)
            model = Categorical(weights / 2.0**32, perfect=False)
            self._by_logits[logits] = model
        return model


def histogram_model(weights: np.ndarray) -> Categorical:
    """Model of symbols that are as frequent as their weights say."""
    return Categorical(weights / weights.sum(), perfect=False)


def fit(counts: np.ndarray, units: int) -> tuple[np.ndarray, float]:
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
    p, q = PROBABILITY[at] / 65536, PROBABILITY[logits[:, 1]] / 65536
    bits = -(nonzero * np.log2(p) + (total - nonzero) * np.log2(1 - p)).sum()
    bits -= (signs[:, 1] * np.log2(q) + signs[:, 0] * np.log2(1 - q)).sum()
    return logits, float(bits) + 16 * int((total.sum(1) > 0).sum())


def level_weights(levels: np.ndarray) -> np.ndarray:
    """Histogram of the levels of the channels, its largest figure scaled to 255, none of them 0."""
    counts = np.bincount(levels, minlength=2).astype(np.float64)
    if not len(levels):
        counts += 1
    return np.maximum(1, np.round(255 * counts / counts.max()))


def magnitude_weights(magnitudes: np.ndarray) -> np.ndarray:
    """Histogram of magnitudes from 1 on, its largest figure scaled to 65535, none of them 0."""
    counts = np.bincount(magnitudes)[1:].astype(np.float64)
    return np.maximum(1, np.round(65535 * counts / counts.max()))
