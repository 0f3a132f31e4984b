import math

import pytest
import torch
from torch import nn

from ptq_det import ternarize
from ptq_det.ternary.statistics import TernaryStatistics, code_entropy
from ptq_det.ternary.ternarize import ternary_layers


def test_entropy_by_hand():
    assert code_entropy(torch.tensor([0, 0, 1, -1], dtype=torch.int8)) == 1.5
    assert code_entropy(torch.zeros(5, dtype=torch.int8)) == 0
    assert code_entropy(torch.zeros(0, dtype=torch.int8)) == 0
    assert code_entropy(torch.tensor([-1, 0, 1])) == pytest.approx(math.log2(3))


def test_figures_of_a_layer_by_hand(cfg):
    cfg.TERNARY.SPARSITY = 0.5
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    model[0].weight.data = torch.tensor([[3.0, -5.0, 0.0, 1.0]])
    ternarize(model, cfg)
    layers = ternary_layers(model)
    first = TernaryStatistics.of(layers)
    assert first.sparsity == 0.5 and first.bits_per_weight == 1.5 and first.sign_flips == 0
    assert first.discrepancy == pytest.approx(math.sqrt((1 + 1 + 0 + 1) / 35))
    with torch.no_grad():
        model[0].weight[0, 3] = 9  # takes the place of 3 among the kept
    second = TernaryStatistics.of(layers, first.codes)
    assert second.sign_flips == 0.5
