"""Packed models that run: in float, or on integers. Importing this registers the engines."""

from .calibration import calibrate, calibrate_packed
from .float_engine import FloatEngine
from .int8.engine import Int8Engine
from .loading import build_packed, load_packed
from .sparse.engine import SparseEngine

__all__ = [
    "FloatEngine",
    "Int8Engine",
    "SparseEngine",
    "build_packed",
    "calibrate",
    "calibrate_packed",
    "load_packed",
]
