import pytest
import torch
from torch import nn

from ptq_det import ternarize
from ptq_det.ternary.ternarize import ternary_layers


@pytest.mark.parametrize("normalize", ["filter", "layer"])
def test_the_network_reaches_the_sparsity_while_layers_differ(cfg, normalize, device):
    cfg.TERNARY.THRESHOLD = "network"
    cfg.TERNARY.NORMALIZE = normalize
    model = nn.Sequential(nn.Linear(300, 200), nn.Linear(200, 400))
    with torch.no_grad():  # heavy tails: most of its weights are small for their norm
        model[1].weight.copy_(torch.randn(400, 200) ** 5)
    ternarize(model.to(device), cfg)
    codes = [layer.codes_and_value()[0] for layer in ternary_layers(model).values()]
    zeros = sum(int((c == 0).sum()) for c in codes) / sum(c.numel() for c in codes)
    assert zeros == pytest.approx(0.8, abs=0.02)
    light, heavy = (float((c == 0).float().mean()) for c in codes)
    assert heavy > light + 0.1


def test_the_threshold_follows_weights_and_ratio(cfg, device):
    cfg.TERNARY.THRESHOLD = "network"
    model = nn.Sequential(nn.Linear(300, 200), nn.Linear(200, 400))
    ternarize(model.to(device), cfg)
    layers = list(ternary_layers(model).values())
    shared = layers[0].ternary.network
    assert layers[1].ternary.network is shared
    before = shared.of(layers[0])
    for layer in layers:
        layer.ternary.ratio = 0.5
    assert 0 < shared.of(layers[0]) < before
    for layer in layers:
        layer.ternary.ratio = 0.0
    assert shared.of(layers[0]) == 0
