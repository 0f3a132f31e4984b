"""What is derived from weights is as old as the weights, whatever changes them, on every path."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ptq_det import ternarize
from ptq_det.commands.waits import HostReads
from ptq_det.quantizers import QUANTIZER_REGISTRY
from ptq_det.ternary.schedule import Stage
from ptq_det.ternary.ternarize import ternary_layers


def make(cfg, **values):
    for key, value in values.items():
        cfg.TERNARY[key] = value
    model = nn.Sequential(nn.Linear(300, 200), nn.ReLU(), nn.Linear(200, 400))
    ternarize(model, cfg)
    return model.to(cfg.MODEL.DEVICE)


def by_copy(edit):
    """What a model computes that was never called before it was edited."""

    def run(model, x):
        fresh = copy.deepcopy(model)
        edit(fresh)
        return fresh(x)

    return run


def set_data(model):
    generator = torch.Generator().manual_seed(1)
    for layer in ternary_layers(model).values():
        layer.weight.data.copy_(torch.randn(layer.weight.shape, generator=generator))


def set_one_layer(model):
    model[0].weight.data.mul_(torch.linspace(0, 3, 300, device=model[0].weight.device))


def exchange_rows(model):
    model[0].weight.data.copy_(model[0].weight.data.flip(0))


def set_data_of_scale(model):
    for layer in ternary_layers(model).values():
        if layer.scale is not None:
            layer.scale.data.mul_(2)


def replace_in_inference_mode(model):
    with torch.inference_mode():
        for layer in ternary_layers(model).values():
            layer.weight.data = layer.weight.neg()


@pytest.mark.parametrize(
    "edit",
    [set_data, set_one_layer, exchange_rows, set_data_of_scale, replace_in_inference_mode],
)
@pytest.mark.parametrize("threshold", ["layer", "network"])
@pytest.mark.parametrize("scale", ["mean", "learned"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_an_evaluation_sees_weights_that_were_set_in_any_way(
    cfg, edit, threshold, scale, mode, device
):
    model = make(cfg, THRESHOLD=threshold, SCALE=scale).eval()
    x = torch.randn(5, 300, device=device)
    with mode():
        model(x)
        expected = by_copy(edit)(model, x)
        edit(model)
        torch.testing.assert_close(model(x), expected, rtol=0, atol=0)


def test_an_average_can_be_put_in_and_taken_out_again(cfg, device):
    model, x = make(cfg).eval(), torch.randn(5, 300, device=device)
    average = torch.optim.swa_utils.AveragedModel(copy.deepcopy(model))
    with torch.no_grad():
        for parameter in average.module.parameters():
            parameter.add_(torch.randn_like(parameter))
        first, expected = model(x), average.module(x)
        kept = [p.detach().clone() for p in model.parameters()]
        for parameter, other in zip(model.parameters(), average.module.parameters(), strict=True):
            parameter.data.copy_(other)
        torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
        for parameter, other in zip(model.parameters(), kept, strict=True):
            parameter.data.copy_(other)
        torch.testing.assert_close(model(x), first, rtol=0, atol=0)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "sgd fused": lambda p: torch.optim.SGD(p, 0.1, fused=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, 0.01, fused=True),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("threshold", ["layer", "network"])
@pytest.mark.parametrize("parts", [1, 3])
def test_gradients_gathered_over_several_passes_are_those_of_one(
    cfg, optimizer, threshold, parts, device
):
    """Two steps; the decay is in each once."""
    cfg.TERNARY.DECAY = 0.3
    cfg.TERNARY.DECAY_TOWARD = "zero"
    whole = make(cfg, THRESHOLD=threshold)
    for layer in ternary_layers(whole).values():
        layer.ternary.stage = Stage.TERNARY
    split = copy.deepcopy(whole)
    steps = [OPTIMIZERS[optimizer](model.parameters()) for model in (whole, split)]
    for _ in range(2):
        x = torch.randn(6, 300, device=device)
        for step in steps:
            step.zero_grad()
        whole(x).square().sum().backward()
        for part in x.chunk(parts):
            split(part).square().sum().backward()
        for a, b in zip(whole.parameters(), split.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-3)
        for step in steps:
            step.step()


def test_a_recomputed_forward_decays_once(cfg, device):
    model = make(cfg, DECAY=0.5, DECAY_TOWARD="zero", SPARSITY=0.0)
    other, x = copy.deepcopy(model), torch.randn(3, 300, device=device)
    model(x).sum().backward()
    checkpoint(other, x, use_reentrant=False).sum().backward()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_steps_by_hand_decay_each(cfg, device):
    model = make(cfg, DECAY=0.5, DECAY_TOWARD="zero")
    x = torch.zeros(3, 300, device=device)
    for _ in range(2):
        model.zero_grad()
        model(x).sum().backward()
        torch.testing.assert_close(model[0].weight.grad, 0.5 * model[0].weight)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.1 * parameter.grad


def test_a_step_given_up_by_mixed_precision_takes_no_decay_with_it(cfg, device):
    model = make(cfg, DECAY=0.5, DECAY_TOWARD="zero")
    x = torch.zeros(3, 300, device=device)
    for scale in (1024.0, 512.0):  # no step in between
        for layer in ternary_layers(model).values():
            layer.ternary.decay.loss_scale = scale
        model.zero_grad()
        model(x).sum().backward()
        torch.testing.assert_close(model[0].weight.grad, scale * 0.5 * model[0].weight)


@pytest.mark.parametrize("toward", ["codes", "zero"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_scaled_loss_takes_the_same_steps(cfg, optimizer, toward, device):
    """With a GradScaler, as AMPTrainer has it, and autocast to what the device has."""
    whole = make(cfg, DECAY=0.3, DECAY_TOWARD=toward)
    models = [whole, copy.deepcopy(whole)]
    x = torch.randn(6, 300, device=device)
    for model, is_scaled in zip(models, (False, True), strict=True):
        step = OPTIMIZERS[optimizer](model.parameters())
        scaler = torch.amp.GradScaler(device, enabled=is_scaled, init_scale=1024.0)
        for _ in range(3):
            for layer in ternary_layers(model).values():
                layer.ternary.stage = Stage.TERNARY
                layer.ternary.decay.loss_scale = scaler.get_scale()
            step.zero_grad()
            with torch.autocast(device, torch.bfloat16):
                loss = model(x).float().square().mean()
            scaler.scale(loss).backward()
            scaler.step(step)
            scaler.update()
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("quantizer", [name for name, _ in QUANTIZER_REGISTRY])
@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("values", [{}, {"THRESHOLD": "network"}, {"SCALE": "learned"}])
def test_a_step_waits_for_no_gpu(cfg, quantizer, stage, values, device):
    if values and quantizer != "PTQ":
        pytest.skip("an option of another quantizer")
    if stage is Stage.FROZEN and not QUANTIZER_REGISTRY.get(quantizer)().freezes:
        pytest.skip("it has no frozen stage")
    cfg.TERNARY.QUANTIZER = quantizer
    cfg.TERNARY.MATCH_SPARSITY = True
    if not QUANTIZER_REGISTRY.get(quantizer)().freezes:
        cfg.TERNARY.FREEZE_START = 1.0
    model = make(cfg, DECAY=0.1, ACTIVATION_BITS=4, **values)
    layers = ternary_layers(model).values()
    x = torch.randn(4, 300, device=device)
    if stage is not Stage.PRUNE:
        for layer in layers:
            layer.ternary.stage = Stage.TERNARY
        model(x)  # starts the clips of the activations, once
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with HostReads() as reads:
        for layer in layers:
            layer.ternary.stage, layer.ternary.ratio = stage, 0.7
            layer.forget()
        model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert reads.found == []


@pytest.mark.cuda
@pytest.mark.parametrize("threshold", ["layer", "network"])
def test_a_step_on_a_gpu_does_not_wait(cfg, threshold, device):
    cfg.TERNARY.THRESHOLD = threshold
    model = nn.Sequential(nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 400)).cuda()
    ternarize(model, cfg)
    for layer in ternary_layers(model).values():
        layer.ternary.stage = Stage.TERNARY
    x = torch.randn(4, 1000, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(x).square().sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
