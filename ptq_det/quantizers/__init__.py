"""Quantizers by name: tensor code that knows no Detectron2."""

from .base import QUANTIZER_REGISTRY, Quantizer, dequantize, group_mean, group_sum, is_ternary
from .baselines import TTQ, TWN
from .ptq import PTQ

__all__ = [
    "PTQ",
    "QUANTIZER_REGISTRY",
    "TTQ",
    "TWN",
    "Quantizer",
    "build_quantizer",
    "dequantize",
    "group_mean",
    "group_sum",
    "is_ternary",
]


def build_quantizer(
    name: str, normalize: str = "filter", scale: str = "mean", match_sparsity: bool = False
) -> Quantizer:
    """Build a quantizer from the values of ``TERNARY.QUANTIZER`` and of the keys named alike."""
    return QUANTIZER_REGISTRY.get(name).from_options(normalize, scale, match_sparsity)
