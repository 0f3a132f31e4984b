import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ptq_det.export.wire import WireError, fields, with_initializers


def small_model() -> bytes:
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    nodes = [helper.make_node("Identity", ["w"], ["y"])]
    graph = helper.make_graph(nodes, "g", [], [value])
    return helper.make_model(graph, producer_name="x").SerializeToString()


def test_fields_by_hand():
    # Field 1 is the number 150; 2 the text "testing" (protobuf.dev, Encoding).
    message = bytes([0x08, 0x96, 0x01, 0x12, 0x07]) + b"testing" + bytes([0x1D, 1, 2, 3, 4])
    assert list(fields(message)) == [(1, 150), (2, b"testing"), (3, b"\x01\x02\x03\x04")]


@pytest.mark.parametrize(
    "message",
    [b"\x08", b"\x08\x96", b"\x12\x07test", b"\x0b", b"\x08" + b"\xff" * 12, b"\x09abc"]
    # The key of field 5, which other readers cut to 32 bits, with one bit more; and field 0.
    + [b"\xaa\x80\x80\x80\x10\x00", b"\x02\x00"],
)
def test_what_is_no_message_is_said(message):
    with pytest.raises(WireError):
        list(fields(message))


def test_initializers_are_read_by_onnx():
    tensors = {
        "w": np.array([1.5, -2.0], np.float32),
        "codes": np.array([[[-1, 0, 1]] * 2], np.int8),
        "bias": np.array([1 << 29, -7], np.int32),
        "empty": np.zeros((0, 3), np.float32),
        "ü": np.float32(3).reshape(()),
    }
    model = onnx.load_from_string(with_initializers(small_model(), tensors))
    onnx.checker.check_model(model)
    found = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    assert found.keys() == tensors.keys() and model.producer_name == "x"
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert (found[name] == tensor).all()


def test_a_model_of_no_graph_is_refused():
    with pytest.raises(WireError, match="0 graphs"):
        with_initializers(b"\x08\x01", {})
