import numpy as np
import pytest

from ptq_det.export.weights import Wanted, initializers
from ptq_det.packing.packed_layer import PackedLayer


def layer(values, scale, bias, shape=None, groups=None) -> PackedLayer:
    values = np.asarray(values, np.int8)
    kind = "ternary" if np.abs(values).max() <= 1 else "int8"
    return PackedLayer(
        kind,
        shape or values.shape,
        groups,
        values,
        np.asarray([scale], np.float16),
        np.asarray(bias, np.float16),
    )


def made(packed, part, **rest):
    wanted = Wanted("name", part, "layer", **rest)
    assert Wanted.from_json(wanted.to_json()) == wanted
    return initializers([wanted], {"layer": lambda: packed})["name"]


def test_ternary_codes_are_the_int8_weights():
    packed = layer([[[[1]], [[-1]]], [[[0]], [[1]]]], [0.5, 0.25], [1.0, -2.0])
    codes = made(packed, "codes", source=0.125)
    assert codes.dtype == np.int8 and (codes == packed.values).all()
    assert made(packed, "scale", source=0.125).tolist() == [0.5, 0.25]
    # A bias is in steps of the input's times the weight's.
    assert made(packed, "bias_scale", source=0.125).tolist() == [0.0625, 0.03125]
    assert made(packed, "bias_codes", source=0.125).tolist() == [16, -64]
    assert made(packed, "weight").tolist() == packed.weight().tolist()
    assert made(packed, "bias").tolist() == [1.0, -2.0]


def test_other_layers_have_7_bits_unless_the_target_is_wide():
    packed = layer([[[[127]], [[-100]]], [[[3]], [[64]]]], [0.5, 0.25], [0.0, 0.0])
    narrow = made(packed, "codes", source=1.0)
    assert narrow.flatten().tolist() == [64, -50, 2, 32]
    assert made(packed, "scale", source=1.0).tolist() == [1.0, 0.5]
    assert (made(packed, "codes", source=1.0, wide=True) == packed.values).all()


def test_a_filter_that_vanishes_beside_its_bias_keeps_the_bias():
    packed = layer([[[[1]]], [[[1]]]], [6e-8, 0.5], [60000.0, 1.0])
    rest = dict(source=1e-3)
    bias = made(packed, "bias_codes", **rest) * made(packed, "bias_scale", **rest).astype(float)
    assert bias.tolist() == pytest.approx([60000.0, 1.0], rel=1e-6)
    assert made(packed, "codes", **rest).flatten().tolist() == [0, 1]


def test_a_transposed_convolution_becomes_one_and_a_shuffle():
    values = np.arange(-8, 8).reshape(2, 2, 2, 2)
    packed = layer(values, [1.0, 0.5], [1.0, 2.0], (2, 2, 2, 2), 1)
    codes = made(packed, "codes", source=1.0, pixels=2)
    assert codes.shape == (8, 2, 1, 1)
    # Output channel f · 4 + 2 · row + column is pixel (row, column) of filter f.
    assert codes[1 * 4 + 2 * 0 + 1].flatten().tolist() == values[1, :, 0, 1].tolist()
    assert made(packed, "scale", source=1.0, pixels=2).tolist() == [1.0] * 4 + [0.5] * 4
    assert made(packed, "bias_codes", source=1.0, pixels=2).tolist() == [1] * 4 + [4] * 4


def test_linear_layers_have_two_dimensions():
    packed = layer([[[[1]], [[0]], [[-1]]]], [0.5], [0.0], (1, 3))
    assert made(packed, "codes", source=1.0).shape == (1, 3)


def test_a_layer_that_is_not_there():
    with pytest.raises(ValueError, match="no layer 'other'"):
        initializers([Wanted("n", "bias", "other")], {})


@pytest.mark.parametrize(
    "value",
    [
        [],
        "text",
        ["n", "code", "l", 0.0, False, 0],
        ["n", "codes", "l", -1.0, False, 0],
        ["n", "codes", "l", float("inf"), False, 0],
        ["n", "codes", "l", 1.0, 1, 0],
        ["n", "codes", "l", 1.0, False, 99],
        ["n", "codes", 3, 1.0, False, 0],
    ],
)
def test_what_is_wanted_is_checked(value):
    with pytest.raises(ValueError, match="it wants"):
        Wanted.from_json(value)
