"""How ternary a model is: sparsity, entropy, discrepancy and flips of its codes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .layers import TernaryLayer

__all__ = ["TernaryStatistics", "code_entropy"]


def code_entropy(codes: Tensor) -> float:
    """Entropy in bits per code, −Σ p log₂ p over the values of int8 codes (Shannon)."""
    counts = torch.bincount(codes.flatten().int() + 128)
    p = counts[counts > 0].double() / max(1, codes.numel())
    return float(-(p * p.log2()).sum())


@dataclass(frozen=True)
class TernaryStatistics:
    """Figures over all ternary layers of a model.

    Attributes:
        sparsity: fraction of zeros among the codes.
        bits_per_weight: entropy of each layer's codes, averaged over the weights.
        discrepancy: ‖w − ŵ‖ / ‖w‖ of latent weights w and ternary weights ŵ.
        sign_flips: fraction of codes that differ from ``previous``; 0 without it.
        codes: int8 codes of each layer.
    """

    sparsity: float
    bits_per_weight: float
    discrepancy: float
    sign_flips: float
    codes: dict[str, Tensor]

    @classmethod
    @torch.no_grad()
    def of(
        cls, layers: dict[str, TernaryLayer], previous: dict[str, Tensor] | None = None
    ) -> "TernaryStatistics":
        """Measure the given layers.

        Args:
            layers: what :func:`ptq_det.ternary.ternarize.ternary_layers` gives.
            previous: codes of an earlier measurement.
        """
        codes: dict[str, Tensor] = {}
        weights = zeros = flips = 0
        bits = squared_error = squared_norm = 0.0
        for name, layer in layers.items():
            codes[name], value = layer.codes_and_value()
            latent = layer.weight.detach().float()
            weights += latent.numel()
            zeros += int(torch.count_nonzero(codes[name] == 0))
            bits += code_entropy(codes[name]) * latent.numel()
            squared_error += float((latent - value).square().sum())
            squared_norm += float(latent.square().sum())
            if previous:
                flips += int(torch.count_nonzero(codes[name] != previous[name]))
        return cls(
            sparsity=zeros / max(1, weights),
            bits_per_weight=bits / max(1, weights),
            discrepancy=(squared_error / squared_norm) ** 0.5 if squared_norm else 0.0,
            sign_flips=flips / max(1, weights),
            codes=codes,
        )
