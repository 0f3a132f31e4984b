import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn

from ptq_det import load_packed, pack_model, ternarize
from ptq_det.errors import InputError
from ptq_det.packing.packed_model import PackedModel

SETTINGS = {"skip": ["c"]}


class Network(nn.Module):
    """A classification network of one layer of each kind."""

    def __init__(self):
        super().__init__()
        self.c = Conv2d(3, 8, 3, norm=FrozenBatchNorm2d(8))
        self.l = nn.Linear(8, 6)
        self.e = nn.Embedding(6, 8)
        self.p = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return self.l(self.c(x).mean((2, 3)) + self.p + self.e(torch.ones(1, dtype=torch.long)))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network().eval()


def packed(model, settings=SETTINGS):
    ternarize(model, settings)
    return PackedModel.of(model, settings)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["l.weight", "l.bias", "c.weight", "c.norm.running_mean", "p"])
def test_values_that_are_not_finite_are_refused(name, value, network):
    network.state_dict()[name].view(-1)[0] = value
    with pytest.raises(InputError, match=rf"{name} holds values that are no finite numbers"):
        packed(network)


def test_a_learned_scale_that_is_not_finite_is_refused(network):
    settings = {**SETTINGS, "quantizer": "TTQ"}
    ternarize(network, settings)
    network.l.scale.data[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"l\.scale holds values"):
        PackedModel.of(network, settings)


def test_variances_below_0_are_refused(network):
    network.c.norm.running_var[0] = -1
    with pytest.raises(InputError, match=r"c cannot be packed: with the norm c\.norm folded in"):
        packed(network)


def test_masks_of_attention_may_be_infinite(network):
    network.register_buffer("mask", torch.full((2, 2), float("-inf")))
    assert packed(network).state_dict()["mask"].isinf().all()


@pytest.mark.parametrize(
    "kind", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "uint16", "bool", "float64"]
)
def test_buffers_of_unusual_types_come_back(kind, network, tmp_path):
    buffer = torch.tensor([0.0, 1.0, 2.0]).to(getattr(torch, kind))
    network.register_buffer("b", buffer)
    ternarize(network, SETTINGS)
    pack_model(network, SETTINGS, tmp_path / "m.safetensors")
    other = Network()
    other.register_buffer("b", torch.zeros(3).to(buffer.dtype))
    found = load_packed(tmp_path / "m.safetensors", "cpu", model=other).b
    assert found.dtype == buffer.dtype and torch.equal(found.cfloat(), buffer.cfloat())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8), "of the type"),
        (lambda: torch.eye(3).to_sparse(), "of the layout"),
        (lambda: torch.ones(3, device="meta"), "on the meta device"),
    ],
)
def test_buffers_without_a_form_are_named(make, message, network):
    network.register_buffer("b", make())
    with pytest.raises(InputError, match=f"'b' is (a tensor )?{message}"):
        packed(network)


class Stateful(nn.Module):
    def get_extra_state(self):
        return {"a": 1}

    def set_extra_state(self, state):
        pass


def test_states_that_are_no_tensors_are_refused(network, tmp_path):
    ternarize(network, SETTINGS)
    pack_model(network, SETTINGS, tmp_path / "m.safetensors")
    network.s = Stateful()
    with pytest.raises(InputError, match=r"'s' \(Stateful\) has a state of its own"):
        PackedModel.of(network, SETTINGS)
    with pytest.raises(InputError, match="has a state of its own"):
        load_packed(tmp_path / "m.safetensors", model=network)


def test_a_parameter_with_two_values_is_refused_with_what_helps(network):
    network.l.weight = network.e.weight
    with pytest.raises(InputError, match=r"'l\.weight' and 'e\.weight' are one parameter"):
        packed(network)
    network.l.weight = nn.Parameter(network.e.weight.detach().clone())
    assert "e.weight" in PackedModel.of(network, SETTINGS).state_dict()


def test_a_parameter_in_float_may_have_two_places():
    model = Network().eval()
    model.l.weight, model.m = model.e.weight, nn.Linear(6, 4)
    model.l = nn.Sequential(model.l)
    model.l.append(model.m)
    settings = {"skip": ["c", "l.0"], "float_layers": "float16"}
    weights = packed(model, settings).state_dict()
    assert torch.equal(weights["l.0.weight"], weights["e.weight"])
