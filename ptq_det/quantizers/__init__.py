"""Quantizers by name: tensor code that knows no Detectron2."""

from .base import (
    QUANTIZER_REGISTRY,
    Quantizer,
    QuantizerOptions,
    dequantize,
    group_mean,
    group_sum,
)
from .baselines import TTQ, TWN
from .ptq import PTQ
from .shift_scaler import ShiftScaler
from .squantizer import SQuantizer

__all__ = [
    "PTQ",
    "QUANTIZER_REGISTRY",
    "TTQ",
    "TWN",
    "Quantizer",
    "SQuantizer",
    "ShiftScaler",
    "build_quantizer",
    "dequantize",
    "group_mean",
    "group_sum",
]


def build_quantizer(name: str, *args, **options) -> Quantizer:
    """Build a quantizer from the value of ``TERNARY.QUANTIZER`` and :class:`QuantizerOptions`."""
    return QUANTIZER_REGISTRY.get(name).from_options(QuantizerOptions(*args, **options))
