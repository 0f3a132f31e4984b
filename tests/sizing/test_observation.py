import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ptq_det.sizing.observation import observe, terms_of


class Small(nn.Module):
    """Two layers, and a loss that is a mean over pictures and places."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 4, 1)
        self.unused = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return {"loss": (self.second(F.relu(self.first(x))) ** 2).sum(1).mean()}


def test_weights_are_squared_gradients_at_the_outputs():
    torch.manual_seed(0)
    model, x = Small(), torch.randn(2, 2, 8, 8)
    hidden = model.first(x)
    hidden.retain_grad()
    last = model.second(F.relu(hidden))
    last.retain_grad()
    (last**2).sum(1).mean().backward()
    rows = last.grad.movedim(1, -1).reshape(-1, 4).norm(dim=1)
    terms = rows.sum() ** 2 / rows.square().sum()
    seen = observe(model, ["first", "second", "unused"], [x])
    assert seen.keys() == {"first", "second"}
    for name, output in (("first", hidden), ("second", last)):
        wanted = terms * output.grad.square().sum((0, 2, 3))
        assert torch.allclose(seen[name].weight, wanted, rtol=1e-3), name
    assert seen["first"].inputs.shape == (128, 18) and seen["second"].inputs.shape == (128, 3)


def test_weights_are_averaged_over_batches_and_summed_over_calls():
    torch.manual_seed(0)
    model, x = Small(), torch.randn(2, 2, 8, 8)
    once = observe(model, ["first"], [x])["first"]
    twice = observe(model, ["first"], [x, x])["first"]
    assert torch.allclose(twice.weight, once.weight, rtol=1e-3)
    levels = observe(_OnLevels(model), ["model.first"], [[x, x]])["model.first"]
    # Each level has half of the loss, so a quarter of the squares; there are twice as many terms.
    assert torch.allclose(levels.weight, once.weight, rtol=1e-3)
    assert len(levels.inputs) == 2 * len(once.inputs)


class _OnLevels(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, levels):
        return {"loss": sum(self.model(x)["loss"] for x in levels) / len(levels)}


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_a_mean_has_as_many_terms_as_values_of_one_size(count):
    layer = nn.Linear(4, 1)
    output = layer(torch.randn(count, 4))
    other = nn.Linear(4, 1)
    unused = other(torch.randn(3, 4))
    outputs = [(other, [unused]), (layer, [output])]
    assert terms_of(output.mean(), outputs) == pytest.approx(count, rel=1e-3)


def test_a_loss_of_nothing_has_one_term():
    layer = nn.Linear(4, 1)
    output = layer(torch.randn(5, 4))
    assert terms_of(output.sum() * 0, [(layer, [output])]) == 1
    assert terms_of(torch.zeros(()), [(layer, [output])]) == 1
