import pytest
import torch

from ptq_det.quantizers import TTQ, TWN, build_quantizer

WEIGHT = torch.tensor([[1.0, -2.0, 0.5], [3.0, -0.1, 0.0]])


def test_twn_by_hand(device):
    # mean|w| = 1.1, so the threshold is 0.77
    codes = TWN().codes(WEIGHT.to(device), sparsity=0.0)
    assert codes.tolist() == [[1, -1, 0], [1, 0, 0]]
    assert TWN().scale(WEIGHT.to(device), codes).tolist() == [[2.0]]


def test_ttq_by_hand(device):
    # max|w| = 3, so the threshold is 0.15
    codes = TTQ().codes(WEIGHT.to(device), sparsity=0.0)
    assert codes.tolist() == [[1, -1, 1], [1, 0, 0]]
    assert TTQ().scale(WEIGHT.to(device), codes).tolist() == [[1.5], [2.0]]


def test_ttq_latent_gradient_is_multiplied_by_the_side_s_scale(device):
    codes, scale = torch.tensor([[1.0, -1.0, 0.0]]), torch.tensor([[2.0], [3.0]])
    inputs = (torch.ones(1, 3), codes, scale)
    grad = TTQ().latent_gradient(*(each.to(device) for each in inputs))
    assert grad.tolist() == [[2, 3, 1]]


@pytest.mark.parametrize("name", ["TWN", "TTQ"])
def test_on_demand_baselines_prune_to_a_sparsity(name, device):
    quantizer = build_quantizer(name, match_sparsity=True)
    codes = quantizer.codes(WEIGHT.to(device), sparsity=4 / 6)
    assert codes.tolist() == [[0, -1, 0], [1, 0, 0]]


@pytest.mark.parametrize("name", ["TWN", "TTQ"])
def test_baselines_that_follow_a_sparsity_take_a_threshold_too(name, device):
    quantizer = build_quantizer(name, match_sparsity=True)
    assert quantizer.follows_sparsity and not build_quantizer(name).follows_sparsity
    # ‖w‖ = 3.776 over the layer, so that 0.5 of it is 1.888
    codes = quantizer.codes(WEIGHT.to(device), 0.0, threshold=0.5)
    assert codes.tolist() == [[0, -1, 0], [1, 0, 0]]
