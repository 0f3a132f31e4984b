"""Ternary layers inside torch.compile, torch.jit.script and torch.export."""

import copy
import logging
import warnings

import pytest
import torch
from detectron2.utils import logger as detectron2_logger
from torch import nn
from torch.func import functional_call

from ptq_det import make_plain, ternarize
from ptq_det.errors import InputError
from ptq_det.settings import TernarySettings
from ptq_det.ternary.activations import PACT
from ptq_det.ternary.compiled import compiled_forward_weight
from ptq_det.ternary.schedule import Stage
from ptq_det.ternary.ternarize import ternary_layers

INPUT = torch.rand(2, 8, 8, 8)


def stack(**settings):
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 8, 2, stride=2),
        nn.Flatten(),
        nn.Linear(8 * 16 * 16, 8),
        nn.Linear(8, 8),
    ]
    model = nn.Sequential(*layers)
    ternarize(model, TernarySettings.make(**settings))
    assert len(ternary_layers(model)) == 4
    return model


def compiled(model):
    """In one graph, or there is an error."""
    return torch.compile(model, backend="aot_eager", fullgraph=True)


def steps_of(model, forward):
    """Outputs of some steps, and the parameters behind them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    outputs = []
    for _ in range(3):
        outputs.append(forward(INPUT))
        outputs[-1].square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [each.detach() for each in outputs], [each.detach() for each in model.parameters()]


@pytest.mark.parametrize(
    "settings",
    [
        {"sparsity": 0.5},
        {"sparsity": 0.5, "threshold": "network", "compensation": 0},
        {"sparsity": 0.5, "decay": 0.01},
        {"quantizer": "TTQ", "sparsity": 0.5},
        {"quantizer": "SQuantizer", "freeze_start": 1.0},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_one_graph_trains_and_predicts_as_without(settings):
    model = stack(**settings)
    other = copy.deepcopy(model)
    torch.testing.assert_close(steps_of(other, compiled(other)), steps_of(model, model))
    with torch.no_grad():
        wanted = model.eval()(INPUT)
        torch.testing.assert_close(compiled(other.eval())(INPUT), wanted)
    assert not torch.equal(wanted, stack(**settings).eval()(INPUT))  # it has learned


def test_a_weight_that_is_used_twice_gets_both_gradients_and_one_decay():
    grads = []
    for wrap in (lambda model: model, compiled):
        model = stack(sparsity=0.5, decay=0.1)

        def twice(x, model=model):
            return model[0](x).sum() + model[0](2 * x).square().sum()

        wrap(twice)(INPUT).backward()
        grads.append(model[0].weight.grad)
    torch.testing.assert_close(*grads)


def test_layers_of_a_kind_share_a_graph():
    seen = []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    torch._dynamo.reset()
    layers = [nn.Linear(8, 8) for _ in range(3)]
    model = nn.Sequential(*layers)
    ternarize(model, TernarySettings.make(sparsity=0.5))
    model.eval()
    x = torch.rand(2, 8)
    with torch.no_grad():
        for layer in layers:
            found = torch.compile(layer, backend=backend, fullgraph=True)(x)
            torch.testing.assert_close(found, layer(x))
    assert len(seen) == 1


def test_a_copy_and_a_pickle_have_forward_weights_of_their_own(tmp_path):
    model = stack(sparsity=0.5)
    torch.save(model, tmp_path / "model.pt")
    read = torch.load(tmp_path / "model.pt", weights_only=False)
    for other in (copy.deepcopy(model), read):
        with torch.no_grad():
            wanted = other.eval()(INPUT)
            for layer in ternary_layers(model).values():
                layer.weight.add_(1)
            torch.testing.assert_close(compiled(other)(INPUT), wanted)
            assert not torch.allclose(compiled(model.eval())(INPUT), wanted)


def test_updates_that_leave_no_trace_are_seen_by_the_next_step():
    losses = []
    for wrap in (lambda model: model, compiled):
        model = stack(sparsity=0.5)
        forward, found = wrap(model), []
        for _ in range(4):
            loss = forward(INPUT).square().mean()
            loss.backward()
            found.append(loss.detach())
            for parameter in model.parameters():
                parameter.data -= 0.05 * parameter.grad
                parameter.grad = None
        losses.append(torch.stack(found))
    torch.testing.assert_close(*losses)
    assert losses[0][-1] < 0.9 * losses[0][0]


def test_the_operator_keeps_pytorch_s_rules():
    layer = stack(quantizer="TTQ", sparsity=0.5)[0].to(memory_format=torch.channels_last)
    arguments = (layer.weight, layer.scale, layer.number)
    torch.library.opcheck(compiled_forward_weight, arguments)


def test_scripting_puts_plain_layers_in_place_and_says_so(caplog):
    model = stack(sparsity=0.5).eval()
    wanted = model(INPUT).detach()
    detectron2_logger._LOG_COUNTER.clear()  # it is said once
    with caplog.at_level(logging.WARNING, "ptq_det"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(model)
    torch.testing.assert_close(scripted(INPUT), wanted)
    assert "script a copy of a model that is to be trained" in caplog.text
    assert not ternary_layers(model)


def test_exporting_asks_for_plain_layers():
    model = stack(sparsity=0.5).eval()
    wanted = model(INPUT).detach()
    with pytest.raises(InputError, match="make_plain"):
        torch.export.export(model, (INPUT,))
    make_plain(model)
    torch.testing.assert_close(torch.export.export(model, (INPUT,)).module()(INPUT), wanted)


@pytest.mark.parametrize("settings", [{"sparsity": 0.5}, {"quantizer": "TTQ", "sparsity": 0.5}])
def test_other_weights_are_those_of_functional_call(settings):
    model = stack(**settings)
    names, others = zip(*model.named_parameters(), strict=True)
    others = [(2 * x.detach() + 0.01).requires_grad_() for x in others]
    own = {name: x.detach().clone() for name, x in zip(names, others, strict=True)}

    def call(*weights):
        return functional_call(model, dict(zip(names, weights, strict=True)), (INPUT,))

    found = compiled(call)(*others)
    grads = torch.autograd.grad(found.square().mean(), others)
    twin = stack(**settings)
    twin.load_state_dict(own)
    wanted = twin(INPUT)
    torch.testing.assert_close(found, wanted)
    wanted.square().mean().backward()
    torch.testing.assert_close(list(grads), [x.grad for x in twin.parameters()])
    with torch.no_grad():
        model.eval()
        torch.testing.assert_close(compiled(call)(*others), twin.eval()(INPUT))
        assert not torch.allclose(compiled(model)(INPUT), twin(INPUT))


def with_activations():
    """A stack whose second layer has a quantized input."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
    ternarize(model, {"activation_bits": 4, "freeze_start": 1.0})
    assert isinstance(model[2].pact, PACT)
    return model


def test_quantized_activations_are_in_the_graph():
    model = with_activations()
    other, x = copy.deepcopy(model), torch.randn(32, 8)
    forward = compiled(other)
    for stage in (Stage.PRUNE, Stage.TERNARY):
        for each in (model, other):
            for layer in ternary_layers(each).values():
                layer.ternary.stage = stage
        for _ in range(3):
            outputs = []
            for call in (model, forward):
                outputs.append(call(x))
                outputs[-1].square().mean().backward()
            torch.testing.assert_close(*outputs)
            for own, of_compiled in zip(model.parameters(), other.parameters(), strict=True):
                torch.testing.assert_close(own.grad, of_compiled.grad)
                with torch.no_grad():
                    own -= 0.1 * own.grad
                    of_compiled -= 0.1 * of_compiled.grad
                own.grad = of_compiled.grad = None
        assert (float(model[2].pact.clip.detach()) > 0) is (stage is Stage.TERNARY)
    model.eval(), other.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(other)(x), model(x))


def test_activations_that_were_never_quantized_are_not_in_a_graph_either():
    model, x = with_activations().eval(), torch.randn(32, 8)
    wanted = model(x).detach()
    torch.testing.assert_close(compiled(model)(x).detach(), wanted)
    assert float(model[2].pact.clip.detach()) == 0


def test_other_weights_have_no_threshold_of_the_network():
    model = stack(sparsity=0.5, threshold="network", compensation=0)
    weight = model[0].weight.detach() + 1

    def call(weight):
        return functional_call(model, {"0.weight": weight}, (INPUT,))

    with pytest.raises(InputError, match="call the model without"):
        compiled(call)(weight)
    call(weight)
