import numpy as np
import pytest
import torch
from torch import nn

from ptq_det.packing.other_tensors import pack_others
from ptq_det.packing.pack_layer import pack_layers


class Attention(nn.Module):
    """What a transformer has beside its linear layers."""

    def __init__(self):
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, 64, 96))
        self.table = nn.Parameter(torch.randn(2000, 3))  # too few columns for scales of their own
        self.small = nn.Parameter(torch.randn(8, 32))
        self.norm = nn.LayerNorm(96)
        self.attention = nn.MultiheadAttention(48, 2)
        self.scale = nn.Parameter(torch.tensor(3.25))
        self.register_buffer("index", torch.arange(300).reshape(20, 15))
        self.register_buffer("mask", torch.rand(9) > 0.5)
        self.register_buffer("mean", torch.rand(5000))


@pytest.fixture
def network():
    return Attention().requires_grad_(False)


def packed(model, float_layers="int8"):
    return pack_others(model, pack_layers(model, float_layers), float_layers)


def test_matrices_are_in_8_bits_vectors_in_float16_and_the_rest_as_it_is(network):
    others = packed(network)
    assert set(others.parameters) == {"position", "attention.in_proj_weight"}
    kinds = {name: array.dtype.name for name, array in others.tensors.items()}
    assert kinds == {
        "table": "float16",
        "small": "float16",
        "scale": "float16",
        "norm.weight": "float16",
        "norm.bias": "float16",
        "attention.in_proj_bias": "float16",
        "index": "int16",
        "mask": "bool",
        "mean": "float32",
    }
    values, own = others.state_dict(), network.state_dict()
    for name in ("index", "mask", "mean"):
        assert torch.equal(values[name], own[name]) and values[name].dtype == own[name].dtype
    for name in ("table", "small", "norm.weight", "scale"):
        torch.testing.assert_close(values[name], own[name], rtol=2**-10, atol=1e-4)
    step = network.position.abs().amax(2, keepdim=True) / 127  # a scale for each place
    assert ((values["position"] - network.position).abs() <= 0.51 * step).all()


def test_all_in_float16_where_the_config_says_so(network):
    others = packed(network, "float16")
    assert not others.parameters and others.tensors["position"].dtype == np.float16
    assert others.tensors["mean"].dtype == np.float32


@pytest.mark.parametrize("extreme", [1e6, 1e-9, float("inf"), float("nan")])
def test_values_that_float16_does_not_hold_stay_in_float32(extreme, network):
    network.norm.weight.fill_(extreme)
    value = packed(network).state_dict()["norm.weight"]
    assert torch.equal(value.nan_to_num(), network.norm.weight.nan_to_num())


def test_a_matrix_with_a_value_that_is_not_finite_is_not_rounded(network):
    network.position[0, 3, 3] = float("nan")
    others = packed(network)
    assert "position" not in others.parameters and np.isnan(others.tensors["position"]).sum() == 1


def test_statistics_are_exact():
    model = nn.Sequential(nn.BatchNorm1d(4))
    model[0].running_var[:2] = torch.tensor([1e-7, 4e4])
    others = packed(model)
    assert np.array_equal(others.tensors["0.running_var"], model[0].running_var.numpy())
    assert others.tensors["0.weight"].dtype == np.float16
    assert others.tensors["0.num_batches_tracked"].dtype == np.int8


@pytest.mark.parametrize("float_layers", ["int8", "float16"])
def test_packing_again_changes_nothing(float_layers, network):
    packed(network, float_layers).give(network)
    values = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    again = packed(network, float_layers).state_dict()
    for name, value in again.items():
        assert torch.equal(value, values[name]), name


@pytest.mark.parametrize("largest", [127, 128, -129, 40_000, 1 << 40])
def test_integers_of_any_size_come_back(largest, network):
    network.index[0, 0] = largest
    assert torch.equal(packed(network).state_dict()["index"], network.index)


def test_half_precision_models_are_packed(network):
    others = packed(network.bfloat16())
    assert torch.equal(others.state_dict()["norm.weight"], network.norm.weight.float())
    assert others.tensors["mean"].dtype == np.float32
