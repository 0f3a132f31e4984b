import pytest
import torch
from torch import nn

from ptq_det.compensation.inputs import LayerInputs, column_groups, samples_of
from ptq_det.data.loader import build_resumable_train_loader
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.ternary.filters import to_filters

LAYERS = [
    "backbone.bottom_up.res3.0.conv2",
    "proposal_generator.rpn_head.conv",
    "roi_heads.box_head.fc1",
    "roi_heads.mask_head.deconv",
]


def nearest(found, outputs):
    return (found.unsqueeze(1) - outputs).abs().amax(2).amin(1)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 5, 3, padding=1, bias=False),
        nn.Conv1d(3, 5, 3, padding=2, stride=2, dilation=2, bias=False),
        nn.Conv2d(3, 5, (1, 3), stride=2, padding=(0, 2), dilation=2, bias=False),
        nn.Linear(12, 5, bias=False),
    ],
)
def test_samples_are_inputs_of_outputs(layer, device):
    sizes = {nn.Linear: (7, 12), nn.Conv1d: (2, 3, 19), nn.Conv2d: (2, 3, 9, 12)}
    layer, x = layer.to(device), torch.randn(sizes[type(layer)], device=device)
    samples = samples_of(layer, x, torch.Generator().manual_seed(0))
    outputs = layer(x).movedim(1, -1).reshape(-1, 5)
    found = samples @ to_filters(layer.weight).T
    assert len(found) == len(outputs)  # fewer than are kept at most: as many as there are
    assert nearest(found, outputs).max() < 1e-5


def test_samples_of_a_transposed_convolution(device):
    layer = nn.ConvTranspose2d(3, 5, 2, 2, bias=False, device=device)
    x = torch.randn(2, 3, 4, 6, device=device)
    samples = samples_of(layer, x, torch.Generator().manual_seed(0))
    filters = to_filters(layer.weight, 1)
    outputs = layer(x)
    for i, columns in enumerate(column_groups(layer)):
        found = samples @ filters[:, columns].T
        of_tap = outputs[:, :, i // 2 :: 2, i % 2 :: 2].movedim(1, -1).reshape(-1, 5)
        assert nearest(found, of_tap).max() < 1e-5


def inputs_of(cfg, change=0.0):
    exact, model = build_float_model(cfg), build_float_model(cfg)
    model.load_state_dict(exact.state_dict())
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter *= 1 + change * torch.randn_like(parameter)
    batches = [batch for batch, _ in zip(build_resumable_train_loader(cfg), range(2), strict=False)]
    return LayerInputs(model, exact, batches)


def test_layers_that_are_called_for_several_maps(cfg, device):
    calls = inputs_of(cfg).calls(LAYERS[::-1])
    assert list(calls) == LAYERS  # in the order of the picture's way
    assert calls["backbone.bottom_up.res3.0.conv2"] == 1
    assert calls["proposal_generator.rpn_head.conv"] == 5  # levels of the FPN


def test_both_models_see_the_same_boxes(cfg, device):
    equal, changed = inputs_of(cfg), inputs_of(cfg, 1e-4)
    calls = equal.calls(LAYERS)
    state = torch.get_rng_state()
    for _, name, own, exact in equal.pairs(calls):
        assert own.dim() == 2 and torch.equal(own, exact), name
    names = []
    for _, name, own, exact in changed.pairs(calls):
        names.append(name)
        assert own.shape == exact.shape and not torch.equal(own, exact)
        assert (own - exact).square().sum() < 0.1 * exact.square().sum(), name
    assert names == 2 * LAYERS
    assert torch.equal(torch.get_rng_state(), state)


def test_a_forward_ends_with_the_last_layer_that_is_looked_at(cfg):
    inputs = inputs_of(cfg)
    inputs._models[0].roi_heads.register_forward_pre_hook(lambda *_: pytest.fail("went on"))
    assert len(list(inputs.pairs({LAYERS[0]: 1, LAYERS[1]: 5}))) == 4
    assert not inputs._models[0].get_submodule(LAYERS[0])._forward_pre_hooks
