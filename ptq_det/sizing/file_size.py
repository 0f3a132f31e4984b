"""Bytes of a model's packed file by the zeros of its layers, without writing one."""

import torch
from torch import nn

from ..packing.names import CODES
from ..packing.packed_model import PackedModel
from ..ternary.layers import TernaryLayer
from .sensitivity import coded_bytes

__all__ = ["FileSize"]


class FileSize:
    """Bytes of the packed file of a model, as things stand now, for any zeros of its layers.

    All but the codes is measured once. Codes are coded as the file has them.

    Args:
        model: with ternary layers.
        cfg: as :func:`ptq_det.pack_model` takes it.
        layers: those whose zeros may change, by name.

    Attributes:
        now: bytes of the file with the zeros that the layers have.
        rest: bytes of all but the codes of these layers.
    """

    def __init__(self, model: nn.Module, cfg, layers: dict[str, TernaryLayer]):
        self._layers = layers
        container = PackedModel.unchecked(model, cfg).to_container()
        codes = sum(container.tensors[f"{name}.{CODES}"].nbytes for name in layers)
        self.now = container.size
        self.rest = self.now - codes

    @torch.no_grad()
    def codes(self, sparsities: dict[str, float]) -> int:
        """Bytes of the codes of the layers at these sparsities, by name."""
        total = 0
        for name, layer in self._layers.items():
            filters = layer.to_filters(layer.weight).float()
            codes = layer.ternary.quantizer.codes(filters, sparsities[name])
            total += coded_bytes(layer, codes)
        return total

    def of(self, sparsities: dict[str, float]) -> int:
        """Bytes of the whole file."""
        return self.rest + self.codes(sparsities)
