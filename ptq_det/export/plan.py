"""Which values of an exported graph are uint8, and what these stand for."""

from torch import nn

from ..errors import InputError
from ..inference.calibration import OUTPUT
from ..inference.ranges import Quantization, Ranges

__all__ = ["FloatPlan", "IntegerPlan"]


class FloatPlan:
    """All values are float32."""

    wide = False

    def of_input(self, module: nn.Module) -> Quantization | None:
        """What the input of a layer stands for; None for float32."""
        return None

    def of_output(self, module: nn.Module) -> Quantization | None:
        """What the output of a layer stands for, where others are added to it."""
        return None


class IntegerPlan(FloatPlan):
    """Values are uint8 where a packed model's calibration tells their ranges.

    Args:
        model: whose layers are asked for.
        ranges: of the packed model.
        wide: whether the target multiplies uint8 by int8 without saturating (VNNI).
    """

    def __init__(self, model: nn.Module, ranges: Ranges, wide: bool = False):
        self._names = {module: name for name, module in model.named_modules()}
        self._ranges, self.wide = ranges, wide

    def of_input(self, module):
        return self._of(self._names[module])

    def of_output(self, module):
        return self._of(self._names[module] + OUTPUT)

    def _of(self, name: str) -> Quantization:
        if name not in self._ranges:
            raise InputError(
                f"the packed model has no range of {name!r}; calibrate it with this release "
                "(tools/pack.py FILE --calibrate DATASET --output NEW_FILE), then export that"
            )
        return Quantization.of(*self._ranges[name])
