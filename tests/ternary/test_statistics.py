import json
import math

import pytest
import torch
from torch import nn

from ptq_det import ternarize
from ptq_det.commands.waits import HostReads
from ptq_det.ternary.statistics import TernaryStatistics, code_entropy
from ptq_det.ternary.ternarize import ternary_layers


def test_entropy_by_hand(device):
    assert code_entropy(torch.tensor([0, 0, 1, -1], dtype=torch.int8, device=device)) == 1.5
    assert code_entropy(torch.zeros(5, dtype=torch.int8, device=device)) == 0
    assert code_entropy(torch.zeros(0, dtype=torch.int8, device=device)) == 0
    of_three = code_entropy(torch.tensor([-1, 0, 1], device=device))
    assert float(of_three) == pytest.approx(math.log2(3))


def test_figures_of_layers_by_hand(cfg, device):
    cfg.TERNARY.SPARSITY = 0.5
    model = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(2, 2, bias=False))
    model[0].weight.data = torch.tensor([[3.0, -5.0, 0.0, 1.0]])
    model[1].weight.data = torch.tensor([[0.0, 2.0], [-2.0, 0.0]])
    ternarize(model.to(device), cfg)
    layers = ternary_layers(model)
    first = TernaryStatistics.of(layers)
    assert first.all.weights == 8 and first.all.sparsity == 0.5 and first.all.sign_flips == 0
    assert first.all.bits_per_weight == 1.5
    assert first.layers["0"].discrepancy == pytest.approx(math.sqrt((1 + 1 + 0 + 1) / 35))
    assert first.layers["1"].discrepancy == 0
    assert first.all.discrepancy == pytest.approx(math.sqrt(3 / 43))
    with torch.no_grad():
        model[0].weight[0, 3] = 9  # takes the place of 3 among the kept
    second = TernaryStatistics.of(layers, first.codes)
    assert second.layers["0"].sign_flips == 0.5 and second.layers["1"].sign_flips == 0
    assert second.all.sign_flips == 0.25
    told = json.loads(second.to_json())
    assert told["layers"]["0"]["sign_flips"] == 0.5 and told["all"]["weights"] == 8


def test_figures_are_read_at_once(cfg):
    cfg.TERNARY.SKIP = []
    model = nn.Sequential(*(nn.Linear(30, 30) for _ in range(3)))
    ternarize(model, cfg)
    layers = ternary_layers(model)
    with HostReads() as reads:
        first = TernaryStatistics.of(layers)
        TernaryStatistics.of(layers, first.codes)
    assert reads.found == []  # but for the one that a GPU would have


def test_a_model_without_ternary_layers_has_figures_too():
    assert TernaryStatistics.of({}).all.sparsity == 0
