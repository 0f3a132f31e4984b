"""How ternary a model is: sparsity, entropy, discrepancy and flips of its codes."""

import json
import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from .layers import TernaryLayer

__all__ = ["Figures", "TernaryStatistics", "code_entropy"]

_EXACT = 1 << 24  # up to which float32 counts


def code_entropy(codes: Tensor) -> Tensor:
    """Entropy in bits per code ``()``, −Σ p log₂ p over the values of int8 codes (Shannon)."""
    parts = codes.flatten().split(_EXACT)
    counts = sum(torch.histc(x.float(), 256, -128.5, 127.5).double() for x in parts)
    p = counts / max(1, codes.numel())
    return -torch.special.xlogy(p, p).sum() / math.log(2)


@dataclass(frozen=True)
class Figures:
    """How ternary some weights are.

    Attributes:
        weights: how many they are.
        sparsity: fraction of zeros among the codes.
        bits_per_weight: entropy of each layer's codes, averaged over the weights.
        discrepancy: ‖w − ŵ‖ / ‖w‖ of latent weights w and ternary weights ŵ.
        sign_flips: fraction of codes that differ from those of an earlier measurement.
    """

    weights: int
    sparsity: float
    bits_per_weight: float
    discrepancy: float
    sign_flips: float


@dataclass(frozen=True)
class TernaryStatistics:
    """Figures over all ternary layers of a model, and of each.

    Attributes:
        all: over all layers; flips are 0 without an earlier measurement.
        layers: of each layer by its name.
        codes: int8 codes of each layer.
    """

    all: Figures
    layers: dict[str, Figures]
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
        sums: dict[str, Tensor] = {}
        for name, layer in layers.items():
            codes[name], value = layer.codes_and_value()
            latent = layer.weight.detach().float()
            flipped = codes[name] != previous[name] if previous else codes[name].new_zeros(1)
            sums[name] = torch.stack(
                [
                    torch.count_nonzero(codes[name] == 0).double(),
                    code_entropy(codes[name]) * latent.numel(),
                    (latent - value).square().sum().double(),
                    latent.square().sum().double(),
                    torch.count_nonzero(flipped).double(),
                ]
            )
        # A GPU is waited for once, not for each figure of each layer.
        read = torch.stack(list(sums.values())).tolist() if sums else []
        rows = [(codes[n].numel(), *row) for n, row in zip(sums, read, strict=True)]
        total = [sum(column) for column in zip(*rows, strict=True)] or [0] * 6
        figures = {name: _figures(*row) for name, row in zip(sums, rows, strict=True)}
        return cls(_figures(*total), figures, codes)

    def to_json(self) -> str:
        """The figures over all layers (``all``) and of each (``layers``), as JSON."""
        layers = {name: asdict(figures) for name, figures in self.layers.items()}
        return json.dumps({"all": asdict(self.all), "layers": layers}, indent=1)


def _figures(weights, zeros, bits, squared_error, squared_norm, flips) -> Figures:
    count = max(1, weights)
    return Figures(
        weights=weights,
        sparsity=zeros / count,
        bits_per_weight=bits / count,
        discrepancy=(squared_error / squared_norm) ** 0.5 if squared_norm else 0.0,
        sign_flips=flips / count,
    )
