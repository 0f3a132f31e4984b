import copy
import pickle

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn

from ptq_det import add_ternary_config, ternarize
from ptq_det.ternary.layers import (
    TernaryConv1d,
    TernaryConv2d,
    TernaryConvTranspose2d,
    TernaryLinear,
)
from ptq_det.ternary.schedule import Stage


def ternary(layer: nn.Module, **values) -> nn.Module:
    cfg = get_cfg()
    add_ternary_config(cfg)
    for key, value in values.items():
        cfg.TERNARY[key] = value
    model = nn.Sequential(layer)
    ternarize(model, cfg)
    return layer


def plain_twin(layer: nn.Module, plain: nn.Module) -> nn.Module:
    """A float layer that holds the ternary values."""
    plain.load_state_dict(layer.state_dict())
    plain.weight.data = layer.codes_and_value()[1]
    return plain


CASES = {
    "1-d conv": lambda: (nn.Conv1d(6, 8, 3, padding=1, stride=2), torch.randn(2, 6, 9)),
    "conv": lambda: (nn.Conv2d(6, 8, 3, padding=1, stride=2), torch.randn(2, 6, 9, 7)),
    "grouped conv": lambda: (nn.Conv2d(6, 8, 3, groups=2), torch.randn(2, 6, 9, 7)),
    "reflected conv": lambda: (
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        torch.randn(2, 4, 9, 7),
    ),
    "detectron2's conv": lambda: (
        Conv2d(6, 8, 3, bias=False, norm=FrozenBatchNorm2d(8), activation=nn.functional.relu),
        torch.randn(2, 6, 9, 7),
    ),
    "deconv": lambda: (nn.ConvTranspose2d(6, 8, 2, stride=2), torch.randn(2, 6, 5, 4)),
    "grouped deconv": lambda: (
        nn.ConvTranspose2d(6, 9, 3, stride=2, groups=3, output_padding=1),
        torch.randn(2, 6, 5, 4),
    ),
    "linear": lambda: (nn.Linear(12, 5), torch.randn(3, 12)),
}


@pytest.mark.parametrize("case", CASES)
def test_forward_equals_the_plain_layer_with_ternary_values(case, device):
    plain, x = (each.to(device) for each in CASES[case]())
    layer = ternary(copy.deepcopy(plain))
    kinds = (TernaryConv1d, TernaryConv2d, TernaryConvTranspose2d, TernaryLinear)
    assert type(layer) in kinds
    codes, _ = layer.codes_and_value()
    assert codes.dtype == torch.int8 and set(codes.unique().tolist()) == {-1, 0, 1}
    torch.testing.assert_close(layer(x), plain_twin(layer, plain)(x))


@pytest.mark.parametrize("case", ["1-d conv", "deconv", "linear"])
def test_keywords_are_those_of_the_plain_layer(case):
    plain, x = CASES[case]()
    layer = ternary(plain)
    assert torch.equal(layer(input=x), layer(x))


@pytest.mark.parametrize("case", CASES)
def test_each_output_channel_has_one_scale(case, device):
    layer = ternary(CASES[case]()[0].to(device))
    _, value = layer.codes_and_value()
    filters = layer.to_filters(value)
    out_channels = getattr(layer, "out_channels", getattr(layer, "out_features", None))
    assert len(filters) == out_channels
    for row in filters:
        assert len(row[row != 0].abs().unique()) <= 1
    assert torch.equal(layer.from_filters(filters), value)


def test_a_deconvolution_s_filters_are_its_output_channels(device):
    layer = ternary(nn.ConvTranspose2d(4, 6, 2, groups=2, device=device))
    filters = layer.to_filters(layer.weight)
    # output channel 4 is the second of the second group, which sees inputs 2 and 3
    assert torch.equal(filters[4], layer.weight[2:, 1].flatten())


def test_an_empty_batch_passes(device):
    assert ternary(nn.Linear(4, 3, device=device))(torch.zeros(0, 4, device=device)).shape == (0, 3)


@pytest.mark.parametrize("training", [True, False])
def test_the_forward_weight_is_computed_once_until_the_weight_changes(
    training, monkeypatch, device
):
    layer = ternary(nn.Linear(40, 30, device=device)).train(training)
    computed = []
    original = layer._compute_forward_weight
    monkeypatch.setattr(
        layer, "_compute_forward_weight", lambda *x: computed.append(1) or original(*x)
    )
    x = torch.randn(2, 40, device=device)
    with torch.set_grad_enabled(training):
        first = layer(x)
        layer(x)
        assert len(computed) == 1
        with torch.no_grad():
            layer.weight.mul_(-1)
        assert len(computed) == 1 and torch.allclose(layer(x) - layer.bias, layer.bias - first)
        assert len(computed) == 2


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, 1.0, foreach=True),
        lambda p: torch.optim.SGD(p, 1.0, fused=True),
        lambda p: torch.optim.AdamW(p, 1.0, foreach=True),
        lambda p: torch.optim.AdamW(p, 1.0, fused=True),
    ],
    ids=["sgd foreach", "sgd fused", "adamw foreach", "adamw fused"],
)
def test_every_optimizer_s_step_is_noticed(optimizer, device):
    layer = ternary(nn.Linear(40, 30, device=device))
    step = optimizer(layer.parameters())
    before = layer.forward_weight().detach().clone()
    layer(torch.randn(9, 40, device=device)).square().sum().backward()
    step.step()
    assert not torch.equal(layer.forward_weight(), before)


def test_a_layer_called_twice_decays_once(device):
    layer = ternary(nn.Linear(40, 30, device=device), DECAY=0.5, DECAY_TOWARD="zero")
    x = torch.randn(2, 40, device=device)
    (layer(x).sum() + layer(x).sum()).backward()
    expected = 2 * x.sum(0).expand(30, 40) + 0.5 * layer.weight
    torch.testing.assert_close(layer.weight.grad, expected)


def test_gradients_of_two_passes_add_up(device):
    layer, x = ternary(nn.Linear(40, 30, device=device)), torch.randn(2, 40, device=device)
    for _ in range(2):
        layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, 2 * x.sum(0).expand(30, 40))


def test_copies_and_pickles_of_a_trained_layer_work(device):
    layer, x = ternary(nn.Linear(40, 30, device=device)), torch.randn(2, 40, device=device)
    expected = layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(other(x), expected)


def test_autocast_computes_codes_in_float32(device):
    layer, x = ternary(nn.Conv2d(6, 8, 3, device=device)), torch.randn(2, 6, 9, 7, device=device)
    expected = layer(x)
    layer.ternary.cache.clear()
    with torch.autocast(device, torch.bfloat16):
        y = layer(x)
        assert y.dtype == torch.bfloat16
        y.float().sum().backward()
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)
    assert layer.weight.grad.dtype == torch.float32


def test_half_precision_weights_work(device):
    layer = ternary(nn.Linear(40, 30, device=device).bfloat16())
    assert layer(torch.randn(2, 40, dtype=torch.bfloat16, device=device)).dtype == torch.bfloat16


def test_channels_last_weights_keep_their_values(device):
    layer, x = ternary(nn.Conv2d(6, 8, 3, device=device)), torch.randn(2, 6, 9, 7, device=device)
    expected = layer(x)
    layer.to(memory_format=torch.channels_last)
    torch.testing.assert_close(layer(x.to(memory_format=torch.channels_last)), expected)


def test_snapping_makes_codes_the_signs_and_keeps_the_function(device):
    layer, x = ternary(nn.Linear(40, 30, device=device)), torch.randn(2, 40, device=device)
    expected, codes = layer(x), layer.codes_and_value()[0]
    assert layer.snap() is True
    assert torch.equal(layer.weight.sign().to(torch.int8), codes)
    layer.ternary.stage = Stage.FROZEN
    torch.testing.assert_close(layer(x), expected)
    assert layer.snap() is False


@pytest.mark.parametrize("quantizer", ["PTQ", "TWN", "TTQ"])
def test_ternary_weights_are_evaluated_as_they_are(quantizer, device):
    # TWN's threshold, taken anew of ternary weights, would drop the filters with small scales.
    source = ternary(nn.Linear(40, 30, device=device), QUANTIZER=quantizer)
    source.snap()
    layer = ternary(nn.Linear(40, 30, device=device), QUANTIZER=quantizer, SPARSITY=0.3)
    layer.load_state_dict(source.state_dict())
    layer.eval()
    torch.testing.assert_close(layer.forward_weight(), source.weight)


def test_a_float_checkpoint_starts_the_learned_scale(device):
    plain = nn.Linear(40, 30, device=device)
    layer = ternary(nn.Linear(40, 30, device=device), QUANTIZER="TTQ")
    assert layer.load_state_dict(plain.state_dict()).missing_keys == []
    filters = plain.weight.detach()
    codes = layer.ternary.quantizer.codes(filters, 0)
    torch.testing.assert_close(layer.scale.detach(), layer.ternary.quantizer.scale(filters, codes))
    with torch.no_grad():
        layer.scale.mul_(2)
    other = ternary(nn.Linear(40, 30, device=device), QUANTIZER="TTQ")
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.scale, layer.scale)
