"""Builds an ONNX graph, an operator a call."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .operators import OPERATORS, OPSET
from .weights import Wanted

__all__ = ["Graph"]

_IR_VERSION = 8  # the least for opset 17, so that older runtimes read it


class Graph:
    """Nodes, constants and the weights that are wanted of a packed model.

    Values are known by their names.
    """

    def __init__(self):
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple, str] = {}
        self._initializers: list[onnx.TensorProto] = []
        self._wanted: dict[str, Wanted] = {}
        self._names: dict[str, int] = {}

    def op(self, kind: str, *inputs: str, **attributes) -> str:
        """Add an operator with one output; the output's name."""
        return self.op_of(kind, 1, *inputs, **attributes)[0]

    def op_of(self, kind: str, outputs: int, *inputs: str, **attributes) -> list[str]:
        """Add an operator with several outputs; their names."""
        assert kind in OPERATORS, kind
        names = [self._name(kind) for _ in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, names[0], **attributes))
        return names

    def _name(self, kind: str) -> str:
        self._names[kind] = self._names.get(kind, 0) + 1
        return f"{kind}_{self._names[kind]}"

    def constant(self, value, dtype=np.int64) -> str:
        """A small array that is part of the graph; equal ones are kept once."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self._initializers.append(numpy_helper.from_array(array, self._constants[key]))
        return self._constants[key]

    def number(self, value: float) -> str:
        """A float32 scalar."""
        return self.constant(value, np.float32)

    def wanted(self, part: str, layer: str, **rest) -> str:
        """A weight that a packed layer gives."""
        name = f"{layer}.{part}"
        self._wanted[name] = Wanted(name, part, layer, **rest)
        return name

    @property
    def weights(self) -> list[Wanted]:
        """The weights that the graph lacks."""
        return list(self._wanted.values())

    # What several places need.

    def shape(self, value: str) -> str:
        """int64 sizes of all dimensions."""
        return self.op("Shape", value)

    def size(self, value: str, axis: int) -> str:
        """int64 ``(1,)``, the size of one dimension."""
        return self.op("Gather", self.shape(value), self.constant([axis]))

    def gather(self, value: str, places: str, axis: int = 0) -> str:
        """Rows by their places."""
        return self.op("Gather", value, places, axis=axis)

    def reshape(self, value: str, *sizes: int) -> str:
        """With sizes that are known; −1 for one that follows."""
        return self.op("Reshape", value, self.constant(sizes))

    def cast(self, value: str, kind=TensorProto.FLOAT) -> str:
        """To another type of elements, float32 by default."""
        return self.op("Cast", value, to=kind)

    def column(self, value: str, first: int, last: int) -> str:
        """Columns ``first`` to ``last − 1`` of the last dimension."""
        ends = ([first], [last], [-1])
        return self.op("Slice", value, *map(self.constant, ends))

    def model(
        self,
        picture: Sequence[int | str],
        outputs: dict[str, tuple[str, int, Sequence[int | str] | None]],
        metadata: dict[str, str],
        about: str,
    ) -> onnx.ModelProto:
        """The finished graph, without the weights that are wanted.

        Args:
            picture: shape of the input ``picture`` of uint8.
            outputs: by name the value, its type and its shape, None for any.
            metadata: texts by name.
            about: what input and outputs are, for people.
        """
        nodes, named = list(self._nodes), []
        for name, (value, kind, shape) in outputs.items():
            if name != value:
                nodes.append(helper.make_node("Identity", [value], [name], name))
            named.append(helper.make_tensor_value_info(name, kind, shape))
        inputs = [helper.make_tensor_value_info("picture", TensorProto.UINT8, picture)]
        graph = helper.make_graph(nodes, "detector", inputs, named, self._initializers, about)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=_IR_VERSION,
            producer_name="ptq_det",
        )
        helper.set_model_props(model, metadata)
        return model
