import numpy as np
import pytest

from ptq_det.packing.packed_parameter import PackedParameter, matrix_shape


@pytest.fixture
def parameter():
    codes = np.random.default_rng(0).integers(-127, 128, (6, 20)).astype(np.int8)
    return PackedParameter.of((1, 6, 4, 5), codes, np.linspace(0.5, 1, 6).astype(np.float16)[None])


def test_it_comes_back(parameter):
    fields, tensors = parameter.to_metadata(), parameter.to_tensors()
    assert PackedParameter.is_meant(fields) and not PackedParameter.is_meant({"kind": "int8"})
    back = PackedParameter.from_file(fields, tensors)
    assert back.shape == (1, 6, 4, 5)
    assert np.array_equal(back.values(), parameter.values())
    codes = parameter.matrix.values.reshape(1, 6, 4, 5)
    scale = parameter.matrix.scale.astype(np.float32).reshape(1, 6, 1, 1)
    assert np.array_equal(back.values(), codes * scale)


@pytest.mark.parametrize(
    ("shape", "matrix"),
    [((5, 3, 2), (5, 6)), ((1, 7, 3), (7, 3)), ((1, 1, 4), (4, 1)), ((1,), (1, 1)), ((), (1, 1))],
)
def test_rows_are_the_first_axis_that_is_one(shape, matrix):
    assert matrix_shape(shape) == matrix


@pytest.mark.parametrize(
    "change",
    [
        {"parameter": False},
        {"parameter": "yes"},
        {"kind": "ternary"},
        {"kind": "float16"},
        {"groups": 1},
        {"norm": "x", "norm_eps": 1e-5},
        {"activation_bits": 4, "clip": 1.0},
        {"offset": 2.0},
        {"shape": [1, 6, 4, 6]},
        {"shape": [6, 21]},
    ],
)
def test_fields_that_are_not_those_of_a_parameter_are_refused(change, parameter):
    with pytest.raises(ValueError):
        PackedParameter.from_file(parameter.to_metadata() | change, parameter.to_tensors())


@pytest.mark.parametrize("change", ["bias", "weight", "no codes", "no scale", "longer scale"])
def test_tensors_that_are_not_those_of_a_parameter_are_refused(change, parameter):
    tensors = parameter.to_tensors()
    if change in ("bias", "weight"):
        tensors[change] = np.zeros(6, np.float16)
    elif change == "longer scale":
        tensors["scale"] = np.ones((1, 7), np.float16)
    else:
        del tensors[change.removeprefix("no ")]
    with pytest.raises(ValueError):
        PackedParameter.from_file(parameter.to_metadata(), tensors)
