"""Quantizers by name: tensor code that knows no Detectron2."""

from .base import (
    QUANTIZER_REGISTRY,
    Quantizer,
    dequantize,
    group_mean,
    group_sum,
)
from .baselines import TTQ, TWN
from .options import Option, all_options, options_of
from .ptq import PTQ
from .shift_scaler import ShiftScaler
from .squantizer import SQuantizer

__all__ = [
    "PTQ",
    "QUANTIZER_REGISTRY",
    "TTQ",
    "TWN",
    "Option",
    "Quantizer",
    "SQuantizer",
    "ShiftScaler",
    "all_options",
    "build_quantizer",
    "dequantize",
    "group_mean",
    "group_sum",
    "options_of",
]


def build_quantizer(name: str, **options) -> Quantizer:
    """Build a quantizer from the value of ``TERNARY.QUANTIZER`` and its own options."""
    return QUANTIZER_REGISTRY.get(name)(**options)
