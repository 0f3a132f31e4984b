import pytest
import torch

from ptq_det import ternarize
from ptq_det.errors import InputError
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing.filled import load_filled


@pytest.fixture
def weights(cfg, tmp_path):
    """Weights of the config's model, in a checkpoint that a test may change."""
    weights = build_float_model(cfg).state_dict()

    def save(change=None):
        held = dict(weights)
        if change is not None:
            change(held)
        torch.save({"model": held}, tmp_path / "w.pth")
        cfg.MODEL.WEIGHTS = str(tmp_path / "w.pth")

    cfg.TERNARY.REQUIRE_TRAINED = True
    return save


@pytest.mark.parametrize("is_ternary", [True, False])
def test_a_checkpoint_that_fills_the_model(is_ternary, weights, cfg):
    weights()
    model = build_float_model(cfg)
    if is_ternary:
        cfg.TERNARY.SCALE = "learned"  # a scale is not among the keys of a float checkpoint
        ternarize(model, cfg)
    load_filled(model.eval(), cfg)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("backbone.fpn_lateral2.weight"), r"1 weights.*fpn_lateral2\.weight"),
        (lambda w: w.pop("roi_heads.box_predictor.cls_score.bias"), "cls_score.bias"),
        (lambda w: w.pop("backbone.bottom_up.stem.conv1.norm.running_var"), "norm.running_var"),
        (
            lambda w: w.update({"roi_heads.box_predictor.cls_score.weight": torch.zeros(4, 16)}),
            r"cls_score\.weight: \(4, 16\) in the checkpoint, \(7, 16\) here",
        ),
    ],
)
def test_layers_that_were_not_filled_are_named(change, message, weights, cfg):
    weights(change)
    with pytest.raises(InputError, match=f"(?s){message}.*REQUIRE_TRAINED False"):
        load_filled(build_float_model(cfg).eval(), cfg)
    cfg.TERNARY.REQUIRE_TRAINED = False
    load_filled(build_float_model(cfg).eval(), cfg)


def test_no_weights_at_all_and_other_names(weights, cfg):
    weights(lambda w: [w.update({f"net.{k}": w.pop(k)}) for k in list(w)])
    for path in (cfg.MODEL.WEIGHTS, ""):
        cfg.MODEL.WEIGHTS = path
        with pytest.raises(InputError, match=r"(?s)\d+ weights of the model.*and \d+ more"):
            load_filled(build_float_model(cfg).eval(), cfg)


def test_other_weights_are_taken_and_named(weights, cfg, tmp_path):
    weights(lambda w: w.pop("backbone.fpn_lateral2.weight"))
    path, cfg.MODEL.WEIGHTS = cfg.MODEL.WEIGHTS, "nowhere.pth"
    with pytest.raises(InputError, match=rf"not loaded from the checkpoint '{path}'"):
        load_filled(build_float_model(cfg).eval(), cfg, path)


def test_weights_that_are_no_finite_numbers(weights, cfg):
    name = "roi_heads.box_predictor.cls_score.bias"
    weights(lambda w: w.update({name: torch.full_like(w[name], float("nan"))}))
    for required in (True, False):
        cfg.TERNARY.REQUIRE_TRAINED = required
        with pytest.raises(InputError, match=r"cls_score\.bias holds values"):
            load_filled(build_float_model(cfg).eval(), cfg)
