"""How int16 codes stand for activations."""

from dataclasses import dataclass

__all__ = ["DENSE", "SPARSE", "Steps"]

SPARSE = 511  # the largest code of what is added up by lists
DENSE = 4095  # and of what is multiplied


@dataclass(frozen=True)
class Steps:
    """A code stands for itself times ``step``; codes go from ``low`` to ``high``."""

    step: float
    low: int
    high: int

    @classmethod
    def of(cls, low: float, high: float, largest: int) -> "Steps":
        """Those whose codes span a range, with codes up to ``largest`` in magnitude."""
        step = max(high, -low) / largest or 1.0
        return cls(step, min(0, round(low / step)), max(1, round(high / step)))
