"""Forward weights of tensors that are not a layer's own, and inside transforms of torch.func."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from ptq_det import ternarize

X = torch.randn(4, 6)


def network(**settings):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    ternarize(model, {"sparsity": 0.5, "skip": ["!*"], **settings})
    return model


@pytest.mark.parametrize("training", [True, False])
def test_each_call_has_the_weights_that_it_is_given(training):
    model = network().train(training)
    own = {name: x.detach().clone() for name, x in model.named_parameters()}
    for i in range(6):  # each in memory that the one before it may have left
        found = functional_call(model, {n: (i - 2) * x for n, x in own.items()}, (X,))
        twin = network().train(training)
        twin.load_state_dict({name: (i - 2) * x for name, x in own.items()})
        torch.testing.assert_close(found, twin(X))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("settings", [{}, {"threshold": "network", "compensation": 0}])
def test_transforms_give_the_gradients_of_backward(settings, training):
    model = network(**settings).train(training)
    weights = dict(model.named_parameters())

    def loss(weights, x):
        return functional_call(model, weights, (x,)).square().sum()

    found = grad(loss)(weights, X)
    of_each = vmap(grad(loss), in_dims=(None, 0))(weights, X[:, None])
    loss(weights, X).backward()
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight.grad)
        torch.testing.assert_close(of_each[name].sum(0), weight.grad)


@pytest.mark.parametrize("training", [True, False])
def test_nothing_of_a_transform_outlives_it(training):
    model = network().train(training)
    of_input = grad(lambda x: model(x).square().sum())(X)
    x = X.clone().requires_grad_()
    model(x).square().sum().backward()
    torch.testing.assert_close(of_input, x.grad)
    assert model[0].weight.grad.abs().sum() > 0
