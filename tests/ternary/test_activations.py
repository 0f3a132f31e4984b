import copy

import pytest
import torch
from detectron2.layers import Conv2d
from torch import nn

from ptq_det import ternarize
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.ternary.activations import PACT, fix_input, layers_after_relu, quantize_activation
from ptq_det.ternary.schedule import Stage
from ptq_det.ternary.ternarize import restore_classes, ternary_layers


def test_by_hand(device):
    values = [-1.0, 0.0, 0.4, 0.6, 1.4, 2.9, 3.0, 7.0]
    x = torch.tensor(values, device=device, requires_grad=True)
    clip = torch.tensor(3.0, device=device, requires_grad=True)
    y = quantize_activation(x, clip, 2)  # steps of 1
    assert y.tolist() == [0, 0, 0, 1, 1, 3, 3, 3]
    (y * torch.arange(1.0, 9.0, device=device)).sum().backward()
    assert x.grad.tolist() == [0, 0, 3, 4, 5, 6, 0, 0]
    assert clip.grad.item() == 7 + 8  # where x >= α


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_error_is_half_a_step_at_most(bits, device):
    x = torch.rand(1000, device=device) * 5
    y = quantize_activation(x, torch.tensor(5.0, device=device), bits)
    assert len(y.unique()) <= 2**bits
    assert (y - x).abs().max() <= 5 / (2**bits - 1) / 2 + 1e-6


def test_the_clip_starts_where_the_error_is_least(device):
    x = torch.cat([torch.full((1000,), 1.0), torch.tensor([20.0])]).to(device)
    pact = PACT(8, device)
    assert torch.equal(pact.eval()(x), x)  # not started: as it is
    pact.train()(x)
    assert 0.9 < float(pact.clip.detach()) <= 20
    few = PACT(2, device).train()
    few(x)
    assert float(few.clip.detach()) < 4  # one outlier is not worth the steps
    before = few.clip.detach().clone()
    few(x * 5)
    assert torch.equal(few.clip.detach(), before)


def test_an_empty_batch_starts_too(device):
    pact = PACT(4, device).train()
    assert (
        pact(torch.zeros(0, 3, device=device)).shape == (0, 3) and float(pact.clip.detach()) == 1.0
    )


def test_layers_after_a_relu(cfg):
    found = layers_after_relu(build_float_model(cfg))
    inside = "backbone.bottom_up.res2.0."
    assert {inside + name for name in ("conv1", "conv2", "conv3", "shortcut")} <= found
    assert "roi_heads.box_head.fc2" in found and "roi_heads.mask_head.deconv" in found
    for name in ("roi_heads.box_head.fc1", "roi_heads.mask_head.mask_fcn1", "backbone.fpn_output2"):
        assert name not in found
    sequence = nn.Sequential(
        nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.ReLU6()),
        nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)),
        Conv2d(2, 2, 1, activation=nn.functional.relu),
        nn.Conv2d(2, 2, 1),
    )
    assert layers_after_relu(sequence) == {"1.0", "3"}


def pact_model(cfg):
    cfg.TERNARY.ACTIVATION_BITS = 4
    model = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 5, 3)).to(cfg.MODEL.DEVICE)
    ternarize(model, cfg)
    return model


def test_activations_are_quantized_from_the_ternary_stage_on(cfg, device):
    model = pact_model(cfg).train()
    (layer,) = ternary_layers(model).values()
    seen = []
    original = layer._conv_forward
    layer._conv_forward = lambda x, *args: seen.append(x) or original(x, *args)
    x = torch.rand(2, 3, 8, 8, device=device)
    layer.ternary.stage = Stage.PRUNE
    model(x).sum().backward()
    assert torch.equal(seen[0], x)
    assert layer.pact.clip.grad.item() == 0  # it has one, for several processes
    layer.ternary.stage = Stage.TERNARY
    model(x).sum().backward()
    assert len(seen[1].unique()) <= 16 and float(layer.pact.clip.detach()) > 0


def test_a_float_checkpoint_lacks_no_clip(cfg, device):
    model = pact_model(cfg)
    plain = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 5, 3)).to(device)
    assert model.load_state_dict(plain.state_dict()).missing_keys == []
    model[1].pact.clip.data.fill_(2.0)
    other = pact_model(cfg)
    other.load_state_dict(model.state_dict())
    assert float(other[1].pact.clip.detach()) == 2.0


def test_a_plain_model_keeps_nothing_of_it(cfg):
    model = pact_model(cfg)
    restore_classes(model)
    assert not model[1]._forward_pre_hooks and set(model.state_dict()) == {"1.weight", "1.bias"}


def test_a_fixed_input_survives_a_copy(device):
    layer = nn.Conv2d(1, 1, 1, bias=False, device=device)
    layer.weight.data.fill_(1.0)
    fix_input(layer, 2, 3.0)
    x = torch.tensor([0.4, 0.6, 9.0], device=device).reshape(1, 1, 1, 3)
    assert copy.deepcopy(layer)(x).flatten().tolist() == [0, 1, 3]
