import copy
import warnings

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.layers import Conv2d
from fvcore.nn import FlopCountAnalysis
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ptq_det import ternarize
from ptq_det.errors import InputError, UntrainedLayersError
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.ternary.layers import TernaryLayer
from ptq_det.ternary.schedule import Stage
from ptq_det.ternary.ternarize import (
    check_trained,
    make_plain,
    restore_classes,
    ternary_layers,
    unwrap,
)


def test_parameters_and_checkpoint_keys_are_kept(cfg):
    model = build_float_model(cfg)
    parameters = {name: id(p) for name, p in model.named_parameters()}
    modules = {name: id(m) for name, m in model.named_modules()}
    keys = list(model.state_dict())
    record = ternarize(model, cfg)
    assert {name: id(p) for name, p in model.named_parameters()} == parameters
    assert {name: id(m) for name, m in model.named_modules()} == modules
    assert list(model.state_dict()) == keys
    assert set(record.converted) == set(ternary_layers(model))
    assert record.weights == sum(x.weight.numel() for x in ternary_layers(model).values())


def test_stem_and_outputs_stay_in_float_and_the_record_says_why(cfg):
    record = ternarize(build_float_model(cfg), cfg)
    assert set(record.skipped) == {
        "backbone.bottom_up.stem.conv1",
        "proposal_generator.rpn_head.objectness_logits",
        "proposal_generator.rpn_head.anchor_deltas",
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.bbox_pred",
        "roi_heads.mask_head.predictor",
    }
    assert "roi_heads.mask_head.deconv" in record.converted
    assert "roi_heads.box_head.fc1" in record.converted
    assert "backbone.bottom_up.stem.conv1: '*stem.*' stays in float" in str(record)


def test_a_second_call_does_nothing(cfg):
    model = build_float_model(cfg)
    first = ternarize(model, cfg)
    states = {name: layer.ternary for name, layer in ternary_layers(model).items()}
    second = ternarize(model, cfg)
    assert second.converted == {} and set(second.already) == set(first.converted)
    assert all(layer.ternary is states[name] for name, layer in ternary_layers(model).items())


def test_layers_of_other_types_are_named_not_converted(cfg):
    class Special(nn.Conv2d):
        pass

    model = nn.Sequential(Special(4, 4, 1), nn.Conv3d(4, 4, 3), nn.Embedding(3, 4))
    record = ternarize(model, cfg)
    assert record.converted == {}
    assert record.skipped["0"] == "layers of type Special are not supported"
    assert record.skipped["1"] == "layers of type Conv3d are not supported"


def test_sparsity_overrides_reach_their_layers(cfg):
    cfg.TERNARY.SPARSITY_OVERRIDES = [["roi_heads.box_head.*", 0.9]]
    model = build_float_model(cfg)
    record = ternarize(model, cfg)
    assert record.converted["roi_heads.box_head.fc1"] == 0.9
    assert record.converted["roi_heads.mask_head.deconv"] == 0.8
    codes, _ = ternary_layers(model)["roi_heads.box_head.fc1"].codes_and_value()
    assert float((codes == 0).float().mean()) == pytest.approx(0.9, abs=1 / codes.numel())


def test_an_override_that_matches_nothing_is_refused(cfg):
    cfg.TERNARY.SPARSITY_OVERRIDES = [["roi_head.*", 0.9]]
    model = build_float_model(cfg)
    with pytest.raises(InputError, match=r"\['roi_head.\*', 0.9\].*no ternary layer"):
        ternarize(model, cfg)
    assert not ternary_layers(model)


def test_a_frozen_layer_is_refused_and_nothing_converted(cfg):
    cfg.MODEL.BACKBONE.FREEZE_AT = 2
    model = build_float_model(cfg)
    with pytest.raises(InputError, match=r"backbone.bottom_up.res2.0.conv1") as error:
        ternarize(model, cfg)
    assert "FREEZE_AT" in str(error.value) and "stem" not in str(error.value).split("\n")[1]
    assert not ternary_layers(model)


def test_plain_weights_load_without_a_missing_key_and_go_back(cfg, tmp_path):
    stock = build_float_model(cfg)
    DetectionCheckpointer(stock, str(tmp_path)).save("stock")
    model = build_float_model(cfg)
    ternarize(model, cfg)
    missing = DetectionCheckpointer(model)._load_model({"model": stock.state_dict()})
    assert missing.missing_keys == [] and missing.unexpected_keys == []
    assert not missing.incorrect_shapes
    back = build_float_model(cfg).load_state_dict(model.state_dict(), strict=True)
    assert back.missing_keys == [] and back.unexpected_keys == []


def test_untrained_layers_are_named(cfg):
    cfg.TERNARY.REQUIRE_TRAINED = True
    stock = build_float_model(cfg)
    model = build_float_model(cfg)
    ternarize(model, cfg)
    backbone_only = {k: v for k, v in stock.state_dict().items() if k.startswith("backbone.")}
    model.load_state_dict(backbone_only, strict=False)
    with pytest.raises(UntrainedLayersError) as error:
        check_trained(model, cfg)
    assert "roi_heads.box_head.fc1" in error.value.names
    assert "roi_heads.mask_head.deconv" in error.value.names
    assert not any(name.startswith("backbone.") for name in error.value.names)
    assert "TERNARY.REQUIRE_TRAINED False" in str(error.value)
    model.load_state_dict(stock.state_dict())
    check_trained(model, cfg)


def test_a_weight_of_another_shape_counts_as_untrained(cfg):
    cfg.TERNARY.REQUIRE_TRAINED = True
    weights = build_float_model(cfg).state_dict()
    weights["roi_heads.box_head.fc2.weight"] = torch.zeros(3, 3)
    model = build_float_model(cfg)
    ternarize(model, cfg)
    DetectionCheckpointer(model)._load_model({"model": weights})
    with pytest.raises(UntrainedLayersError) as error:
        check_trained(model, cfg)
    assert error.value.names == ["roi_heads.box_head.fc2"]


def test_a_plain_convolution_gets_no_norm_or_activation(cfg):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), Conv2d(4, 4, 1, activation=torch.relu))
    ternarize(model, cfg)
    assert all(isinstance(layer, TernaryLayer) for layer in model)
    assert model[0].activation is None and model[1].activation is torch.relu


def test_plain_layers_are_of_the_exact_class_again(cfg):
    behind = Conv2d(4, 4, 3, norm=nn.BatchNorm2d(4))
    layers = [nn.Conv2d(3, 4, 3), behind, nn.ConvTranspose2d(4, 4, 2), nn.Linear(4, 4)]
    model = nn.Sequential(*layers)
    types, attributes = [type(x) for x in model], [set(vars(x)) for x in model]
    cfg.TERNARY.ACTIVATION_BITS = 4
    ternarize(model, cfg)
    restore_classes(model)
    assert [type(x) for x in model] == types
    assert [set(vars(x)) for x in model] == attributes


def test_clips_are_made_where_the_model_is(cfg):
    cfg.TERNARY.ACTIVATION_BITS = 4
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    ternarize(model, cfg)
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert "2.pact.clip" in dict(model.named_parameters())


def test_layers_that_are_read_without_their_forward_stay_in_float(cfg):
    model = nn.Sequential(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        nn.MultiheadAttention(8, 2),
        nn.Linear(8, 8),
    )
    record = ternarize(model, cfg)
    assert set(record.converted) == {"2"}
    assert "TransformerEncoderLayer reads" in record.skipped["0.linear1"]
    assert "MultiheadAttention reads" in record.skipped["1.out_proj"]


def ternary_stack(cfg):
    """Layers of each kind, with latent weights."""
    layers = [
        nn.Conv2d(8, 16, 3, padding=1),
        Conv2d(16, 16, 1, activation=nn.ReLU()),
        nn.ConvTranspose2d(16, 8, 2, stride=2),
        nn.Flatten(),
        nn.Linear(8 * 16 * 16, 8),
    ]
    model = nn.Sequential(*layers)
    cfg.TERNARY.SKIP, cfg.TERNARY.SPARSITY_OVERRIDES = ["!*"], []
    ternarize(model, cfg)
    assert len(ternary_layers(model)) == 4
    return model


@pytest.mark.parametrize("frozen", [False, True])
def test_a_model_made_plain_computes_the_same_and_can_be_scripted(frozen, cfg):
    model, x = ternary_stack(cfg), torch.rand(2, 8, 8, 8)
    for layer in ternary_layers(model).values() if frozen else ():
        layer.snap()
    with torch.no_grad():
        wanted = model.eval()(x)
    make_plain(model.train())  # whatever its mode
    assert not ternary_layers(model)
    torch.testing.assert_close(model(x), wanted)
    scripted = torch.jit.script(nn.Sequential(*(m for m in model if type(m) is not Conv2d)))
    assert scripted(x).shape == (2, 8)  # Detectron2's own Conv2d cannot be, outside of its export


@torch.no_grad()
def test_ternary_layers_are_traced_and_their_operations_counted(cfg):
    model, x = ternary_stack(cfg).eval(), torch.rand(2, 8, 8, 8)
    for other in (x, torch.rand(2, 8, 8, 8)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(model, x, check_trace=False)
        torch.testing.assert_close(traced(other), model(other))
    model = ternary_stack(cfg).eval()  # which has never computed its forward weights
    counted = FlopCountAnalysis(model, x).unsupported_ops_warnings(False).total()
    plain = copy.deepcopy(model)
    make_plain(plain)
    own = FlopCountAnalysis(plain, x).unsupported_ops_warnings(False).total()
    assert own <= counted < 1.1 * own


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_they_are_traced_where_gradients_are_recorded(mode, cfg):
    model, x = ternary_stack(cfg), torch.rand(2, 8, 8, 8)
    getattr(model, mode)()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, x)
    torch.testing.assert_close(traced(x), model(x))


@pytest.mark.parametrize("stage", list(Stage))
def test_a_model_made_plain_in_a_stage_computes_what_it_did(stage, cfg):
    model, x = ternary_stack(cfg).eval(), torch.rand(2, 8, 8, 8)
    for layer in ternary_layers(model).values():
        if stage is Stage.FROZEN:
            layer.snap()
        layer.ternary.stage, layer.ternary.ratio = stage, 0.5
        layer.forget()
    with torch.no_grad():
        wanted = model(x)
    make_plain(model)
    torch.testing.assert_close(model(x), wanted)


def test_wrappers_are_looked_through(cfg):
    model = ternary_stack(cfg)
    names = list(ternary_layers(model))
    for wrapped in (
        AveragedModel(model),
        torch.compile(model),
        torch.compile(AveragedModel(model)),
    ):
        assert list(ternary_layers(wrapped)) == names
        assert type(unwrap(wrapped)) is nn.Sequential


def test_layers_without_a_weight_yet_are_said():
    with pytest.raises(InputError, match="1 has no weight yet; run the model once"):
        ternarize(nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(3)), {})
