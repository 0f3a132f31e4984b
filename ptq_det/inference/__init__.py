"""Packed models that run: in float, or on integers."""

from .calibration import calibrate, calibrate_packed
from .loading import ENGINES, build_int8, load_for_evaluation, load_packed

__all__ = [
    "ENGINES",
    "build_int8",
    "calibrate",
    "calibrate_packed",
    "load_for_evaluation",
    "load_packed",
]
