"""Layers of a packed model as operators of a graph, on float32 or, between QDQ nodes, on uint8."""

from dataclasses import dataclass

import numpy as np
from detectron2.layers import Conv2d
from torch import nn

from ..errors import InputError
from ..inference.ranges import Quantization
from ..ternary.activations import is_relu
from .graph import Graph
from .plan import FloatPlan

__all__ = ["Computed", "Layers", "Value"]

_CONVOLUTIONS = (nn.Conv2d, Conv2d)
_TRANSPOSED = (nn.ConvTranspose2d,)


@dataclass(frozen=True)
class Value:
    """A value of the graph.

    Attributes:
        name: of the float32 value, which for a uint8 one is what it stands for.
        represents: what the uint8 codes are, or None.
        codes: name of the uint8 value, where there is one.
    """

    name: str
    represents: Quantization | None = None
    codes: str = ""

    @property
    def sized(self) -> str:
        """Name of a value that has its shape, and is at hand."""
        return self.codes or self.name


@dataclass(frozen=True)
class Computed:
    """A layer as a graph computes it: its name, its input and its output, behind a ReLU or not."""

    layer: str
    given: Value
    result: Value
    relu: bool


class Layers:
    """Adds layers to a graph.

    A layer whose input and target are uint8 computes on integers, with the file's codes for
    weights; any other one in float32. Norms have been folded.

    Args:
        graph: added to.
        model: the plain model of the packed one.
        plan: what is uint8.
    """

    def __init__(self, graph: Graph, model: nn.Module, plan: FloatPlan):
        self.graph, self.plan = graph, plan
        self._names = {module: name for name, module in model.named_modules()}
        self.computed: list[Computed] = []  # as they were added

    def name_of(self, module: nn.Module) -> str:
        """Of a module in the model, for messages."""
        return self._names[module]

    def quantize(self, value: Value, target: Quantization | None) -> Value:
        """A value as uint8; itself where no target is given or it is that already."""
        if target is None or value.represents == target:
            return value
        steps = self._steps(target)
        codes = self.graph.op("QuantizeLinear", value.name, *steps)
        return Value(self.graph.op("DequantizeLinear", codes, *steps), target, codes)

    def _steps(self, quantization: Quantization) -> tuple[str, str]:
        zero = self.graph.constant(quantization.zero_point, np.uint8)
        return self.graph.number(quantization.scale), zero

    def end(self, result: str, relu: bool, target: Quantization | None) -> Value:
        """A result with its ReLU, and rounded; codes from 0 on need no ReLU before they are."""
        if relu and (target is None or target.zero_point != 0):
            result = self.graph.op("Relu", result)
        return self.quantize(Value(result), target)

    def add(self, first: Value, second: Value, relu: bool, target: Quantization | None) -> Value:
        """The sum of two values."""
        return self.end(self.graph.op("Add", first.name, second.name), relu, target)

    def keep(self, kind: str, value: Value, *inputs: str, **attributes) -> Value:
        """An operator that makes no new numbers, so that uint8 stays what it stood for."""
        result = self.graph.op(kind, value.name, *inputs, **attributes)
        return self.quantize(Value(result), value.represents)

    def conv(
        self,
        module: nn.Module,
        value: Value,
        target: Quantization | None = None,
        relu: bool = False,
    ) -> Value:
        """A convolution, with the activation that Detectron2's own has inside.

        Args:
            module: the layer.
            value: its input.
            target: what its output is to stand for; None for float32.
            relu: whether a ReLU follows it.

        Raises:
            InputError: it is of another class, or has a norm that was not folded.
        """
        name = self._names[module]
        inside = getattr(module, "activation", None)
        fits = type(module) in _CONVOLUTIONS and getattr(module, "norm", None) is None
        if not fits or not (inside is None or (is_relu(inside) and not _is_relu6(inside))):
            raise InputError(f"{name} cannot be exported: {module}")
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            raise InputError(f"{name} cannot be exported: it pads otherwise than with zeros")
        weights = self._weights(name, value, target)
        result = self.graph.op("Conv", value.name, *weights, **_geometry(module))
        return self._noted(name, value, result, relu or inside is not None, target)

    def linear(
        self,
        module: nn.Linear,
        value: Value,
        target: Quantization | None = None,
        relu: bool = False,
    ) -> Value:
        """A linear layer ``(rows, inputs)``, on integers wherever its input is uint8."""
        name = self._names[module]
        weights = self._weights(name, value, target, rows=module.out_features)
        product = self.graph.op("Gemm", value.name, *weights, alpha=1.0, beta=1.0, transB=1)
        return self._noted(name, value, product, relu, target)

    def deconv(
        self,
        module: nn.ConvTranspose2d,
        value: Value,
        target: Quantization | None = None,
        relu: bool = False,
    ) -> Value:
        """A transposed convolution; on integers, where no runtime has it, as one and a shuffle.

        Raises:
            InputError: its kernel is not its stride, on integers.
        """
        name = self._names[module]
        if not isinstance(module, _TRANSPOSED) or getattr(module, "norm", None) is not None:
            raise InputError(f"{name} cannot be exported: {module}")
        if target is None or value.represents is None:
            places = dict(**_geometry(module), output_padding=module.output_padding)
            weights = self._weights(name, value, None)
            result = self.graph.op("ConvTranspose", value.name, *weights, **places)
            return self._noted(name, value, result, relu, None)
        factor = module.stride[0]
        rest = (module.padding, module.output_padding, module.dilation, module.groups)
        square = module.kernel_size == module.stride == (factor, factor)
        if not square or rest != ((0, 0), (0, 0), (1, 1), 1):
            raise InputError(f"{name} cannot be exported on integers: its outputs overlap")
        weights = self._weights(name, value, target, pixels=factor)
        places = dict(kernel_shape=(1, 1), strides=(1, 1), pads=[0] * 4)
        result = self.end(self.graph.op("Conv", value.name, *weights, **places), relu, target)
        result = self.keep("DepthToSpace", result, blocksize=factor, mode="CRD")
        self.computed.append(Computed(name, value, result, relu))
        return result

    def _noted(self, name, value, result, relu, target) -> Value:
        """The end of a layer, which is kept among those computed."""
        ended = self.end(result, relu, target)
        self.computed.append(Computed(name, value, ended, relu))
        return ended

    def _weights(self, name, value, target, rows=0, pixels=0) -> tuple[str, str]:
        """Weight and bias as float32 values; behind DequantizeLinear where they are integers."""
        want = self.graph.wanted
        if value.represents is None or not (rows or target is not None):
            return want("weight", name), want("bias", name)
        rest = dict(source=value.represents.scale, wide=self.plan.wide, pixels=pixels)
        # Runtimes know a linear layer on integers by its zero points, a convolution without.
        zeros = [self.graph.constant([0] * rows, kind) for kind in ("int8", "int32") if rows]
        made = []
        for i, pair in enumerate((("codes", "scale"), ("bias_codes", "bias_scale"))):
            parts = [want(part, name, **rest) for part in pair]
            made.append(self.graph.op("DequantizeLinear", *parts, *zeros[i : i + 1], axis=0))
        return made[0], made[1]


def _geometry(module: nn.Module) -> dict:
    """Attributes of a convolution, or of a transposed one."""
    return dict(
        kernel_shape=module.kernel_size,
        strides=module.stride,
        dilations=module.dilation,
        pads=[*module.padding, *module.padding],
        group=module.groups,
    )


def _is_relu6(activation) -> bool:
    return isinstance(activation, nn.ReLU6)
