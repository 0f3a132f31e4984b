import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ptq_det.sizing.observation import end_of, observe


class Small(nn.Module):
    """Two layers, and a loss that is a mean over pictures and places."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 4, 1)
        self.unused = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        return {"loss": (self.second(F.relu(self.first(x))) ** 2).sum(1).mean()}


@pytest.mark.parametrize("count", [1, 2])
def test_weights_are_squared_gradients_of_single_terms(count):
    torch.manual_seed(0)
    model, x = Small(), torch.randn(2, 2, 8, 8)
    hidden = model.first(x)
    last = model.second(F.relu(hidden))
    terms = (last**2).sum(1).flatten()  # of which the loss is the mean
    wanted = [torch.zeros(3), torch.zeros(4)]
    for term in terms:
        grads = torch.autograd.grad(term, (hidden, last), retain_graph=True)
        for total, grad in zip(wanted, grads, strict=True):
            total += grad.square().sum((0, 2, 3)) / len(terms)
    rows = last.detach().square().sum(1).flatten().sqrt()
    counted = rows.sum() ** 2 / rows.square().sum() / len(terms)  # fewer than there are
    seen = observe(model, ["first", "second", "unused"], [x] * count)
    assert seen.keys() == {"first", "second"}
    for name, total in zip(("first", "second"), wanted, strict=True):
        # The mean over terms, not its square: a mean of many has no smaller curvature.
        assert torch.allclose(seen[name].weight, counted * total, rtol=1e-3), name
    assert seen["first"].inputs.shape == (128 * count, 18)
    assert seen["second"].inputs.shape == (128 * count, 3)


def test_terms_that_pull_one_way_are_not_taken_for_one():
    """Without signs of their own the 256 terms would count as the square of their sum."""
    torch.manual_seed(0)
    batches = [torch.randn(1, 3)] * 100
    seen = observe(Spread(), ["first"], batches)["first"]
    # Each term has the gradient 1 at the one output; 256 pulling together would have 256.
    assert float(seen.weight) == pytest.approx(1, abs=0.5)


class Spread(nn.Module):
    """One number, and a mean of it over 256 places."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 1)
        self.last = nn.Linear(1, 1)
        nn.init.ones_(self.last.weight)

    def forward(self, x):
        return {"loss": self.last(self.first(x).expand(256, 1)).mean()}


def test_outputs_of_all_calls_of_a_layer_count():
    torch.manual_seed(0)
    model, x = Small(), torch.randn(2, 2, 8, 8)
    once = observe(model, ["second"], [x])["second"]
    levels = observe(_OnLevels(model), ["model.second"], [[x, x]])["model.second"]
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
def test_each_term_goes_back_as_if_it_were_alone(count):
    layer, unused = nn.Linear(4, 1), nn.Linear(4, 1)
    output = layer(torch.randn(count, 4))
    outputs = [(unused, [unused(torch.randn(3, 4))]), (layer, [output])]
    ((found, grad),) = end_of(output.mean(), outputs, torch.Generator().manual_seed(0))
    assert found is output
    # √n · 1/n at each of n places: squares sum up to 1 whatever n is.
    assert float(grad.square().sum()) == pytest.approx(1, rel=1e-3)
    assert count < 10 or abs(float(grad.sign().mean())) < 0.9


def test_a_loss_of_nothing_ends_at_its_layer_with_nothing():
    layer = nn.Linear(4, 1)
    output = layer(torch.randn(5, 4))
    generator = torch.Generator()
    ((_, grad),) = end_of(output.sum() * 0, [(layer, [output])], generator)
    assert not grad.any()
    assert end_of(torch.zeros(()), [(layer, [output])], generator) == []
