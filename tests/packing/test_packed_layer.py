import numpy as np
import pytest

from ptq_det.packing import CodecError
from ptq_det.packing.packed_layer import PackedLayer

CODES = np.array([[1, 0], [-1, 1], [0, 0]], np.int8).reshape(3, 2, 1, 1)


def packed_layer(**fields):
    scale = np.array([[2, 3, 5]], np.float32)
    return PackedLayer("ternary", (3, 2), None, CODES, scale, **fields)


def test_weights_by_hand():
    assert packed_layer().weight().tolist() == [[2, 0], [-3, 3], [0, 0]]
    assert packed_layer(offset=1.5).weight().tolist() == [[3, 0], [-4.5, 4.5], [0, 0]]
    half = PackedLayer("float16", (3, 2), None, CODES.astype(np.float16) / 2)
    assert half.weight().tolist() == [[0.5, 0], [-0.5, 0.5], [0, 0]]
    assert half.weight().dtype == np.float32 and half.float_bias() is None
    transposed = packed_layer()
    transposed.shape, transposed.groups = (2, 3, 1, 1), 1
    assert transposed.weight()[:, :, 0, 0].tolist() == [[2, -3, 0], [0, 3, 0]]


def test_through_tensors_and_metadata():
    bias = np.array([1, 2, 3], np.float16)
    layer = packed_layer(bias=bias, norm="n", norm_eps=1e-5, activation_bits=4, clip=2.0)
    back = PackedLayer.from_file(layer.to_metadata(), layer.to_tensors())
    assert back.weight().tolist() == layer.weight().tolist()
    assert back.float_bias().tolist() == [1, 2, 3]
    for name in ("kind", "shape", "norm", "norm_eps", "offset", "activation_bits", "clip"):
        assert getattr(back, name) == getattr(layer, name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "float8"),
        ("shape", [10, 6, 3]),
        ("shape", [10, 6, 3, 2**40]),
        ("shape", [-10, 6, 3, 3]),
        ("shape", "many"),
        ("groups", 3),
        ("groups", 0),
        ("norm", 5),
        ("offset", "1"),
        ("offset", float("nan")),
    ],
)
def test_fields_that_do_not_fit_are_refused(field, value):
    packed = packed_layer()
    with pytest.raises((ValueError, CodecError)):
        PackedLayer.from_file(packed.to_metadata() | {field: value}, packed.to_tensors())


@pytest.mark.parametrize("lacking", ["codes", "scale"])
def test_tensors_that_lack_are_refused(lacking):
    packed = packed_layer()
    tensors = packed.to_tensors()
    del tensors[lacking]
    with pytest.raises(ValueError, match="it has no"):
        PackedLayer.from_file(packed.to_metadata(), tensors)


def test_a_folded_norm_leaves_a_bias():
    fields = packed_layer().to_metadata() | {"norm": "norm", "norm_eps": 1e-5}
    with pytest.raises(ValueError, match="a folded norm, and no bias"):
        PackedLayer.from_file(fields, packed_layer().to_tensors())
