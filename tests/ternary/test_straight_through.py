import pytest
import torch

from ptq_det.quantizers import build_quantizer, dequantize
from ptq_det.ternary.schedule import Stage
from ptq_det.ternary.straight_through import Decay, forward_weight, substitute

LATENT = torch.tensor([[1.0, -2.0, 0.5, 0.1], [0.2, -0.4, 3.0, 0.0]])
CODES = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
GRAD = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
NO_DECAY = Decay(0.0, toward_codes=True)


def run(stage, device, quantizer=None, decay=NO_DECAY, scale=None):
    """Forward weight and gradients, computed on a device and brought from there."""
    quantizer = quantizer or build_quantizer("PTQ")
    scale = None if scale is None else scale.to(device)
    latent, codes = LATENT.to(device), CODES.clone().to(device)
    value, rule = forward_weight(latent, codes, scale, quantizer, stage, decay)
    found = (value, *rule(GRAD.to(device)))
    assert all(each is None or each.device == latent.device for each in found)
    return tuple(None if each is None else each.cpu() for each in found)


def test_ternary_stage_passes_the_gradient_straight_through(device):
    value, grad, scale_grad = run(Stage.TERNARY, device)
    assert value.tolist() == [[1.5, -1.5, 0, 0], [0, 0, 3, 0]]
    assert torch.equal(grad, GRAD) and scale_grad is None


def test_pruning_stage_keeps_surviving_weights_in_float(device):
    value, grad, _ = run(Stage.PRUNE, device)
    assert value.tolist() == [[1, -2, 0, 0], [0, 0, 3, 0]]
    assert torch.equal(grad, GRAD)


def test_frozen_stage_moves_only_the_scale(device):
    codes = CODES.to(device)
    latent = dequantize(codes, torch.tensor([[1.5, 3.0]], device=device))
    value, rule = forward_weight(
        latent, codes, None, build_quantizer("PTQ"), Stage.FROZEN, Decay(1.0, True)
    )
    assert torch.equal(value, latent)
    # mean of code × gradient: (1 − 2) / 2 in the first filter, 7 in the second
    assert rule(GRAD.to(device))[0].tolist() == [[-0.5, 0.5, 0, 0], [0, 0, 7, 0]]


@pytest.mark.parametrize("toward_codes", [True, False])
def test_decay_is_added_to_the_gradient(toward_codes, device):
    decay = Decay(0.1, toward_codes)
    value, grad, _ = run(Stage.TERNARY, device, decay=decay)
    difference = LATENT - value if toward_codes else LATENT
    torch.testing.assert_close(grad, GRAD + 0.1 * difference)
    decay.loss_scale = 1024.0  # mixed precision divides the gradient by this before the step
    _, scaled, _ = run(Stage.TERNARY, device, decay=decay)
    torch.testing.assert_close(scaled, GRAD + 102.4 * difference)


def test_learned_scales_get_the_sum_over_their_codes(device):
    scale = torch.tensor([[2.0], [3.0]])
    value, grad, scale_grad = run(Stage.TERNARY, device, build_quantizer("TTQ"), scale=scale)
    assert value.tolist() == [[2, -3, 0, 0], [0, 0, 2, 0]]
    assert scale_grad.tolist() == [[1 + 7], [-2]]
    assert grad.tolist() == [[2, 6, 3, 4], [5, 6, 14, 8]]


@pytest.mark.parametrize("quantizer", ["PTQ", "TTQ"])
@pytest.mark.parametrize("stage", [Stage.PRUNE, Stage.FROZEN])
def test_a_learned_scale_that_is_not_used_gets_a_zero_gradient(stage, quantizer, device):
    if (quantizer, stage) == ("TTQ", Stage.PRUNE):
        return  # TTQ has no pruning stage: its scale is used
    options = {"scale": "learned"} if quantizer == "PTQ" else {}
    quantizer = build_quantizer(quantizer, **options)
    scale = torch.ones(quantizer.signs, 2 if quantizer.by_filter else 1)
    assert (
        run(stage, device, quantizer, scale=scale)[2].tolist() == torch.zeros_like(scale).tolist()
    )


def test_the_scale_s_gradient_is_that_of_autograd(device):
    scale = torch.rand(2, 1, dtype=torch.float64, device=device, requires_grad=True)
    codes, grad = CODES.double().to(device), GRAD.double().to(device)
    latent = LATENT.double().to(device)
    (dequantize(codes, scale) * grad).sum().backward()
    _, rule = forward_weight(
        latent, codes, scale.detach(), build_quantizer("TTQ"), Stage.TERNARY, NO_DECAY
    )
    torch.testing.assert_close(rule(grad)[1], scale.grad)


def test_substitute_hands_gradients_to_the_rule_once(device):
    weight = torch.ones(2, device=device, requires_grad=True)
    calls = []

    def rule(grad):
        calls.append(grad)
        return grad * 10, None

    value = substitute(torch.tensor([5.0, 7.0], device=device), weight, None, rule)
    assert value.tolist() == [5, 7]
    (value.sum() + 2 * value.sum()).backward()
    assert weight.grad.tolist() == [30, 30] and len(calls) == 1


@pytest.mark.parametrize("stage", [Stage.PRUNE, Stage.TERNARY])
def test_a_masked_gradient_reaches_kept_weights_only(stage, device):
    quantizer = build_quantizer("SQuantizer", bits=4, sigma=0.0)
    latent, grad = LATENT.to(device), GRAD.to(device)
    codes = quantizer.codes(latent, 0.0)
    kept = codes != 0
    value, rule = forward_weight(latent, codes, None, quantizer, stage, NO_DECAY)
    assert torch.equal(value != 0, kept) and kept.any() and not kept.all()
    assert torch.equal(rule(grad)[0], grad * kept)
    if stage is Stage.PRUNE:
        assert torch.equal(value, latent * kept)
