import pytest
import torch
from torch import nn

from ptq_det.packing import PackedFileError
from ptq_det.packing.claims import Claim, check_claims, check_density, claimed_shape


def model():
    with torch.device("meta"):
        sequence = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        return nn.Sequential(sequence, nn.ConvTranspose2d(4, 6, 2, groups=2), nn.LayerNorm(5))


CLAIMS = {
    "0.0": Claim((4, 3, 3, 3), None, True, "0.1"),
    "1": Claim((4, 3, 2, 2), 2, True, None),
}
TENSORS = {"2.weight": (5,), "2.bias": (5,)}


def test_what_fits():
    check_claims(CLAIMS, TENSORS, model(), "m")


@pytest.mark.parametrize(
    ("layers", "tensors", "message"),
    [
        ({"0.0": Claim((4, 3, 3, 5), None, True, "0.1")}, {}, r"\(4, 3, 3, 5\) in the file"),
        ({"0.0": Claim((4, 3, 3, 3), None, True, "2")}, {}, "no norm '2' behind '0.0'"),
        ({"0.0": Claim((4, 3, 3, 3), None, True, None)}, {}, "bias of '0.0'"),
        ({"1": Claim((4, 3, 2, 2), 1, True, None)}, {}, "groups of '1'"),
        ({"1": Claim((4, 3, 2, 2), 2, False, None)}, {}, "bias of '1'"),
        ({"9": Claim((4, 3), None, True, None)}, {}, r"'9' has the shape \(4, 3\).* None"),
        ({"2": Claim((5,), None, True, None)}, {}, "'2' has the shape"),
        ({}, {"2.bias": (6,)}, r"'2.bias' has the shape \(6,\)"),
        ({}, {"x": (6,)}, "'x' has the shape"),
    ],
)
def test_what_does_not_fit_is_named(layers, tensors, message):
    with pytest.raises(PackedFileError, match=message):
        check_claims(CLAIMS | layers, TENSORS | tensors, model(), "m")


def test_what_lacks_is_named():
    with pytest.raises(PackedFileError, match=r"'1\.bias' has the shape None"):
        check_claims({"0.0": CLAIMS["0.0"]}, TENSORS, model(), "m")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"shape": "many"},
        {"shape": [3]},
        {"shape": [3, 0]},
        {"shape": [3, True]},
        {"shape": [1 << 20, 1 << 20]},
        {"shape": [3, 3, 33, 1]},
        {"shape": [3, 3], "norm": 5},
        {"shape": [3, 3], "groups": "1"},
    ],
)
def test_fields_that_claim_too_much_or_nothing(fields):
    with pytest.raises(PackedFileError, match=r"m: layer 'x': it has (a )?wrong"):
        Claim.read(fields, {}, "x", "m")


def test_fields_of_a_layer():
    claim = Claim.read({"shape": [3, 4, 1, 1], "norm": "n"}, {"bias": None}, "x", "m")
    assert claim == Claim((3, 4, 1, 1), None, True, "n")


@pytest.mark.parametrize(
    "shape", [None, "many", [], [3, 0], [3, -1], [3, 2.0], [True, 3], [1 << 20, 1 << 20], [1] * 9]
)
def test_shapes_of_parameters_that_claim_too_much_or_nothing(shape):
    with pytest.raises(PackedFileError, match=r"m: parameter 'x': it has a wrong shape"):
        claimed_shape({"shape": shape}, "x", "m")


def test_the_shape_of_a_parameter():
    assert claimed_shape({"shape": [1, 64, 40]}, "x", "m") == (1, 64, 40)


def test_more_weights_than_bytes_are_likely_to_hold():
    layers = {"fc": Claim((1000, 3000), 1, False, None)}
    check_density(layers, {"p": (100,)}, 1 << 16, "m")
    with pytest.raises(PackedFileError, match="m: its layers have 3000100 weights in 9 bytes"):
        check_density(layers, {"p": (100,)}, 9, "m")
