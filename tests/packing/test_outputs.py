"""What a packed model computes is what the model computed."""

import copy
import logging

import pytest
import torch
import torchvision
from detectron2.config import instantiate
from torch import nn

from ptq_det import pack_model, ternarize
from ptq_det.commands.classification import classifier_config
from ptq_det.errors import InputError
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing.architecture import Architecture
from ptq_det.packing.packed_model import PackedModel
from ptq_det.ternary import activations
from ptq_det.ternary.activations import fix_input
from ptq_det.ternary.norms import fold_norms
from ptq_det.ternary.ternarize import ternary_layers
from tests.lazy_models import narrow_vitdet


def _twice(module):
    module.register_forward_hook(lambda module, args, output: output * 2)


# What a model may be given after it was built, and the module that shows it first.
CHANGES = {
    "another activation": (
        lambda m: setattr(m.backbone.bottom_up.stem.conv1, "activation", torch.sigmoid),
        "backbone.bottom_up.stem.conv1",
    ),
    "another stride": (
        lambda m: setattr(m.backbone.fpn_output3, "dilation", (2, 2)),
        "backbone.fpn_output3",
    ),
    "rpn": (lambda m: _twice(m.proposal_generator.rpn_head.anchor_deltas), "anchor_deltas"),
    "box head": (lambda m: _twice(m.roi_heads.box_head.fc1), r"box_head\.fc1"),
    "mask head": (lambda m: _twice(m.roi_heads.mask_head.deconv), r"mask_head\.deconv"),
    "pooler": (
        lambda m: setattr(m.roi_heads.mask_pooler, "canonical_level", 9),
        r"mask_pooler\.level_poolers\.0",
    ),
    "anchors": (
        lambda m: setattr(m.proposal_generator.anchor_generator, "offset", 0.5),
        "anchor_generator",
    ),
    "normalization": (lambda m: m.pixel_std.mul_(2), r"stem\.conv1"),
    "an activation of 4 bits": (
        lambda m: fix_input(m.backbone.fpn_output2, 4, 1.0),
        r"fpn_output2",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_model_that_was_changed_is_not_written(name, model, cfg, tmp_path, device):
    change, first = CHANGES[name]
    change(model)
    with pytest.raises(InputError, match=f"{first} gives something else"):
        pack_model(model, cfg, tmp_path / "m.safetensors")
    assert not list(tmp_path.glob("m.*"))


def test_stale_codes_are_refused(model, cfg, tmp_path, monkeypatch, device):
    fc1 = model.roi_heads.box_head.fc1
    codes, scale = fc1.codes_and_scale()
    real = type(fc1).codes_and_scale
    seen = iter([(-codes, scale)])  # to the packing alone
    monkeypatch.setattr(
        type(fc1),
        "codes_and_scale",
        lambda self: (next(seen, None) or real(self)) if self is fc1 else real(self),
    )
    with pytest.raises(InputError, match=r"weights of roi_heads\.box_head\.fc1 are others"):
        pack_model(model, cfg, tmp_path / "m.safetensors")


def _with_clips(cfg, randomize_norms):
    """A ternary model whose quantizers of inputs have started."""
    model = build_float_model(cfg)
    randomize_norms(model)
    ternarize(model, cfg)
    for name, parameter in model.named_parameters():
        if name.endswith("pact.clip"):
            parameter.data.fill_(1.5)
    return model


@pytest.mark.parametrize("quantizer", ["PTQ", "TTQ", "SQuantizer", "ShiftScaler"])
@pytest.mark.parametrize("activation_bits", [0, 4])
def test_nothing_is_refused_of_what_was_built(
    quantizer, activation_bits, cfg, randomize_norms, device
):
    cfg.TERNARY.QUANTIZER, cfg.TERNARY.ACTIVATION_BITS = quantizer, activation_bits
    cfg.TERNARY.FREEZE_START = 0.9 if quantizer in ("PTQ", "TTQ") else 1.0
    model = _with_clips(cfg, randomize_norms)
    before = copy.deepcopy(model.state_dict())
    PackedModel.of(model, cfg)
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_classification_networks(tmp_path):
    cfg = classifier_config("mobilenet_v2")
    model = torchvision.models.mobilenet_v2(weights=None, num_classes=7).eval()
    ternarize(model, cfg)
    architecture = Architecture("torchvision", "mobilenet_v2", 7)
    PackedModel.of(model, cfg, architecture)
    model.features[3].use_res_connect = not model.features[3].use_res_connect
    model.features[2].conv[0][2] = nn.ReLU()  # no ReLU6
    with pytest.raises(InputError, match="something else"):
        PackedModel.of(model, cfg, architecture)


def test_a_model_that_ends_in_an_error_is_compared_up_to_there(
    model, cfg, tmp_path, monkeypatch, caplog
):
    """As rotated boxes do where Detectron2 was not compiled."""

    def fail(*args, **rest):
        raise NotImplementedError("no such operator")

    monkeypatch.setattr("detectron2.modeling.poolers.assign_boxes_to_levels", fail)
    with caplog.at_level(logging.WARNING, "ptq_det"):
        pack_model(model, cfg, tmp_path / "m.safetensors")
    assert "compared with the model up to" in caplog.text and "no such operator" in caplog.text
    (tmp_path / "m.safetensors").unlink()
    _twice(model.backbone.fpn_output3)
    with pytest.raises(InputError, match="fpn_output3 gives something else"):
        pack_model(model, cfg, tmp_path / "m.safetensors")


def test_a_model_that_does_not_run_at_all_is_refused(model, cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "preprocess_image", lambda x: 1 / 0)
    with pytest.raises(InputError, match=r"cannot be compared, .*\(division by zero\)"):
        pack_model(model, cfg, tmp_path / "m.safetensors")


def _in_float32(module):
    """Let a module give float32, whatever it computes in."""
    module.register_forward_hook(lambda m, args, out: {k: v.float() for k, v in out.items()})


def test_activations_in_float32_are_not_refused_for_a_step_of_their_rounding(
    cfg, randomize_norms, monkeypatch
):
    """A sum between two steps goes either way in float32: here, every one does in one model."""
    cfg.TERNARY.ACTIVATION_BITS = 4
    model = _with_clips(cfg, randomize_norms)
    _in_float32(model.backbone)  # the model cannot be run in float64
    real, calls = activations.quantize_activation, iter(range(10**6))

    def quantize(x, clip, bits):
        rounded = real(x, clip, bits)
        return rounded if x.dtype == torch.float64 else rounded + next(calls) * 1e-3

    monkeypatch.setattr(activations, "quantize_activation", quantize)
    PackedModel.of(model, cfg)
    _twice(model.backbone.fpn_output3)
    with pytest.raises(InputError, match="fpn_output3 gives something else"):
        PackedModel.of(model, cfg)


def test_what_cannot_run_in_float64_is_compared_in_float32(model, cfg, tmp_path):
    predictor = model.roi_heads.box_predictor
    forward = type(predictor).forward
    single = torch.ones(1)

    def other(x):
        scores, deltas = forward(predictor, x)
        return torch.nn.functional.linear(scores, single.expand(1, scores.shape[1])), deltas

    predictor.forward = other
    with pytest.raises(InputError, match=r"where the model runs roi_heads\.box_predictor"):
        pack_model(model, cfg, tmp_path / "m.safetensors")


def test_frozen_codes_of_shift_behind_live_norms_are_not_rounded_again(cfg, randomize_norms):
    cfg.TERNARY.SCALE = "shift"
    cfg.MODEL.RESNETS.NORM = "BN"
    model = build_float_model(cfg)
    randomize_norms(model)
    ternarize(model, cfg)
    for layer in ternary_layers(model).values():
        layer.snap()
    first = PackedModel.of(model, cfg)
    fold_norms(model.eval())
    again = PackedModel.of(model, cfg)
    for name, layer in first.layers.items():
        assert (again.layers[name].weight() == layer.weight()).all(), name


def test_a_vitdet_is_not_compared_on_a_large_square(tmp_path, caplog):
    cfg = narrow_vitdet()
    cfg.backbone.square_pad = 4096
    model = instantiate(cfg).eval()
    ternarize(model, {})
    with caplog.at_level(logging.WARNING, "ptq_det"):
        pack_model(model, cfg, tmp_path / "m.safetensors")
    assert "compared with the model up to" not in caplog.text
    assert model.backbone.padding_constraints["square_size"] == 4096
