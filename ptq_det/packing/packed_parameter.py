"""A parameter that belongs to no layer, in 8 bits: a matrix of integers and a scale for each row.

NumPy alone, as :mod:`.packed_layer`.
"""

import math
from dataclasses import dataclass

import numpy as np

from .names import CODES, SCALE, SHIFTS, STEP
from .packed_layer import PackedLayer

__all__ = ["PackedParameter", "matrix_shape"]

_KIND = "int8"


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a tensor as a matrix: its first axis that is longer than 1, the rest."""
    rows = next((size for size in shape if size != 1), 1)
    return rows, math.prod(shape) // max(rows, 1)


@dataclass
class PackedParameter:
    """A parameter as the packed file holds it.

    Attributes:
        shape: in PyTorch.
        matrix: its values, as those of a linear layer of :func:`matrix_shape` in int8.
    """

    shape: tuple[int, ...]
    matrix: PackedLayer

    @classmethod
    def of(cls, shape: tuple[int, ...], codes: np.ndarray, scale: np.ndarray) -> "PackedParameter":
        """From int8 codes ``(rows, columns)`` and a scale ``(1, rows)``."""
        rows, columns = matrix_shape(shape)
        values = np.ascontiguousarray(codes.reshape(rows, columns, 1, 1))
        return cls(shape, PackedLayer(_KIND, (rows, columns), None, values, scale))

    def values(self) -> np.ndarray:
        """The float32 values, of the parameter's own shape."""
        return self.matrix.weight().reshape(self.shape)

    def to_tensors(self) -> dict[str, np.ndarray]:
        """What the file holds of it, by the last part of the name."""
        return self.matrix.to_tensors()

    def to_metadata(self) -> dict:
        """What the file's header says of it, among the layers."""
        return {"kind": _KIND, "shape": list(self.shape), "parameter": True}

    @staticmethod
    def is_meant(fields: dict) -> bool:
        """Whether fields among those of the layers are of a parameter."""
        return "parameter" in fields

    @classmethod
    def from_file(cls, fields: dict, tensors: dict[str, np.ndarray]) -> "PackedParameter":
        """The reverse of :meth:`to_metadata` and :meth:`to_tensors`.

        Args:
            fields: of which the shape is checked already (:mod:`.claims`).
            tensors: by the last part of their names.

        Raises:
            ValueError: they do not fit each other.
        """
        if fields != {"kind": _KIND, "shape": fields["shape"], "parameter": True}:
            raise ValueError("it has other fields than a parameter has")
        if not tensors.keys() <= {CODES, SCALE, STEP, SHIFTS}:
            raise ValueError("it has other tensors than a parameter has")
        shape = tuple(fields["shape"])
        matrix = {"kind": _KIND, "shape": list(matrix_shape(shape))}
        return cls(shape, PackedLayer.from_file(matrix, tensors))
