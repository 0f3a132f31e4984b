import itertools

import pytest
import torch
from torch import nn

from ptq_det import TernaryTrainer, ternarize
from ptq_det.compensation.inputs import column_groups, samples_of
from ptq_det.compensation.moments import InputMoments
from ptq_det.compensation.whole_model import _compensate_layer, compensate_model
from ptq_det.data.loader import build_resumable_train_loader
from ptq_det.errors import InputError
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.ternary.schedule import Stage
from ptq_det.ternary.ternarize import ternary_layers


def compensated(model, cfg, batches):
    ternarize(model, cfg)
    compensate_model(model, batches, 8)
    return model


def features(model, picture):
    for layer in ternary_layers(model).values():
        layer.ternary.stage = Stage.TERNARY
    with torch.no_grad():
        return model.train().backbone(picture)["p2"]


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_features_are_kept_better_than_in_one_shot(norm, cfg, device, log):
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.FPN.NORM = norm
    models = [build_float_model(cfg) for _ in range(3)]
    for name, parameter in models[0].named_parameters():
        if norm == "FrozenBN" and "conv3" in name:
            parameter.data *= 0.1  # or features grow a thousandfold from block to block
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())
    batch = next(iter(build_resumable_train_loader(cfg)))
    picture = models[0].preprocess_image(batch).tensor
    exact = features(models[0], picture)
    ternarize(models[1], cfg)
    statistics = {n: b.clone() for n, b in models[2].named_buffers()}
    compensated(models[2], cfg, build_resumable_train_loader(cfg))
    for name, buffer in models[2].named_buffers():
        assert torch.equal(buffer, statistics[name]), name
    one_shot, found = (
        float((features(model, picture) - exact).square().sum()) for model in models[1:]
    )
    assert found < one_shot
    assert "squared error of the outputs of " in log.text
    before, after = map(float, log.text.split("layers ")[1].split(" (mean)")[0].split(" -> "))
    assert after < 0.7 * before


@pytest.mark.parametrize(
    "layer", [nn.Linear(24, 6), nn.Conv2d(8, 6, 3), nn.ConvTranspose2d(8, 6, 2, 2)]
)
def test_a_mean_error_is_made_good_by_the_bias(layer, cfg, device):
    shape = (500, 24) if isinstance(layer, nn.Linear) else (2, 8, 20, 24)
    layer, x = layer.to(device), torch.randn(shape, device=device) + 1
    exact = layer(x).detach()
    cfg.TERNARY.SKIP = ["!*"]
    model = nn.Sequential(layer)
    ternarize(model, cfg)
    columns = column_groups(layer)
    taps = isinstance(layer, nn.ConvTranspose2d)
    inputs = [
        (InputMoments(len(each), device), InputMoments(len(each), device))
        for each in (columns[:1] if taps else columns)
    ]
    for seed in range(20):
        inputs[0][seed % 2].add(samples_of(layer, x, torch.Generator().manual_seed(seed)))
    with torch.no_grad():
        _compensate_layer(layer, inputs)
    layer.ternary.stage = Stage.TERNARY
    lost = (layer(x) - exact).movedim(1, -1).reshape(-1, 6).mean(0).abs()
    assert lost.max() < 0.03 and exact.abs().mean() > 0.1


def test_convolutions_of_other_kinds_stay_as_they_are(cfg):
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding="same"), nn.Conv2d(4, 4, 3, groups=2))
    cfg.TERNARY.SKIP = ["!*"]
    ternarize(model, cfg)
    before = [layer.weight.clone() for layer in model]
    compensate_model(model, [torch.randn(1, 4, 8, 8)], 1)
    assert all(torch.equal(layer.weight, b) for layer, b in zip(model, before, strict=True))


def test_layers_that_no_picture_reaches_stay_as_they_are(cfg, device):
    model = build_float_model(cfg)
    batches = [batch for batch, _ in zip(build_resumable_train_loader(cfg), range(4), strict=False)]
    for picture in itertools.chain(*batches):
        picture["instances"] = picture["instances"][:0]  # no boxes, so none for the mask head
    ternarize(model, cfg)
    layers = ternary_layers(model)
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    compensate_model(model, batches, 4)
    assert all(layer.weight.isfinite().all() for layer in layers.values())
    equal = {name for name, layer in layers.items() if torch.equal(layer.weight, before[name])}
    assert equal == {name for name in layers if "mask_head" in name}


def test_it_happens_before_the_first_iteration_alone(cfg, device, monkeypatch):
    calls = []

    def count(model, batches, number):
        calls.append(number)
        compensate_model(model, batches, number)

    monkeypatch.setattr("ptq_det.training.hooks.compensate_model", count)
    cfg.TERNARY.COMPENSATION, cfg.TERNARY.PRUNE_END = 24, 0.0
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = 2, 2
    TernaryTrainer(cfg).train()
    assert calls == [2]  # no more batches than iterations
    cfg.SOLVER.MAX_ITER = 4
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    assert calls == [2]


def test_without_iterations_there_is_nothing_to_do(cfg):
    model = build_float_model(cfg)
    ternarize(model, cfg)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    compensate_model(model, [], 0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_inputs_that_are_not_finite_are_said_with_the_layer_s_name(cfg, device):
    model = build_float_model(cfg)
    ternarize(model, cfg)
    with torch.no_grad():
        model.roi_heads.box_head.fc1.bias.fill_(torch.inf)
    batches = itertools.islice(build_resumable_train_loader(cfg), 4)
    with pytest.raises(InputError, match=r"inputs of roi_heads\.box_head\.fc2 are not finite"):
        compensate_model(model, batches, 4)
