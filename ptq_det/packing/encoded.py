"""Packed layers and parameters as the tensors and fields of a file."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from .claims import Claim, claimed_shape
from .container import PackedFileError
from .header import Header
from .names import PARTS
from .other_tensors import OtherTensors
from .packed_layer import PackedLayer
from .packed_parameter import PackedParameter

__all__ = ["Encoded", "encode"]

_THREADS = 2


def encode(layers: dict[str, PackedLayer], others: OtherTensors) -> tuple[dict[str, Any], str]:
    """All tensors of a file, and the text ``layers`` of its metadata."""
    tensors, fields = dict(others.tensors), {}
    for name, each in (layers | others.parameters).items():
        fields[name] = each.to_metadata()
        tensors |= {f"{name}.{part}": value for part, value in each.to_tensors().items()}
    return tensors, json.dumps(fields, separators=(",", ":"))


@dataclass
class Encoded:
    """What a file holds of layers and parameters, not decoded.

    Attributes:
        layers, parameters: fields of their metadata by name.
        parts: tensors of each, by name and part.
        others: tensors that are stored as they are.
        path: file it was read from, for messages.
    """

    layers: dict[str, dict]
    parameters: dict[str, dict]
    parts: dict[str, dict[str, Tensor]]
    others: dict[str, Tensor]
    path: str

    @classmethod
    def of(cls, head: Header, tensors: Mapping[str, Tensor], path: str) -> "Encoded":
        """What the header and the tensors of a file say."""
        others = dict(tensors)
        parts = {
            name: {p: others.pop(f"{name}.{p}") for p in PARTS if f"{name}.{p}" in others}
            for name in head.layers
        }
        parameters = {n: f for n, f in head.layers.items() if PackedParameter.is_meant(f)}
        layers = {n: f for n, f in head.layers.items() if n not in parameters}
        return cls(layers, parameters, parts, others, path)

    @property
    def coded_bytes(self) -> int:
        """Of all tensors of layers and parameters."""
        return sum(tensor.nbytes for parts in self.parts.values() for tensor in parts.values())

    def claims(self) -> tuple[dict[str, Claim], dict[str, tuple[int, ...]]]:
        """What is claimed of layers, and the shapes of parameters.

        Raises:
            PackedFileError: a claim is none.
        """
        path, parts = self.path, self.parts
        layers = {n: Claim.read(each, parts[n], n, path) for n, each in self.layers.items()}
        return layers, {n: claimed_shape(each, n, path) for n, each in self.parameters.items()}

    def decode(self) -> tuple[dict[str, PackedLayer], dict[str, PackedParameter]]:
        """Layers and parameters.

        Raises:
            PackedFileError: one cannot be decoded.
        """
        with ThreadPoolExecutor(_THREADS) as pool:  # sorting runs beside decoding
            layers = pool.map(partial(self._decode, PackedLayer, self.layers), self.layers)
            parameters = pool.map(
                partial(self._decode, PackedParameter, self.parameters), self.parameters
            )
            return (
                dict(zip(self.layers, layers, strict=True)),
                dict(zip(self.parameters, parameters, strict=True)),
            )

    def _decode(self, kind, fields: dict[str, dict], name: str):
        try:
            return kind.from_file(fields[name], self.parts[name])
        except (ValueError, OverflowError) as error:
            raise PackedFileError(self.path, f"layer {name!r}: {error}") from error
