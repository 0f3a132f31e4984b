import re

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.mvit import MViT
from detectron2.modeling.backbone.swin import SwinTransformer
from detectron2.modeling.backbone.vit import ViT
from detectron2.modeling.meta_arch.fcos import FCOSHead
from torch import nn

from ptq_det import keep_in_float, ternarize
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.settings import TernarySettings
from ptq_det.ternary import kept_layers as module
from ptq_det.ternary.kept_layers import kept_layers
from tests.regnet import narrow_regnet

BACKBONES = {
    "ViT": (
        lambda: ViT(32, 16, embed_dim=16, depth=0),  # blocks need timm
        {"patch_embed.proj"},
    ),
    "MViT": (lambda: MViT(embed_dim=16, depth=0, last_block_indexes=()), {"patch_embed.proj"}),
    "Swin": (
        lambda: SwinTransformer(
            embed_dim=12, depths=[1, 1], num_heads=[1, 1], out_indices=(1,), drop_path_rate=0.0
        ),
        {"patch_embed.proj"},
    ),
    "RegNet": (narrow_regnet, {"stem.conv"}),
    "FCOS": (
        lambda: FCOSHead(
            input_shape=[ShapeSpec(channels=32)],
            num_classes=3,
            conv_dims=[32],
        ),
        {"cls_score", "bbox_pred", "ctrness"},
    ),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_first_and_last_layers_of_an_architecture(name):
    build, expected = BACKBONES[name]
    model = build()
    record = ternarize(model, TernarySettings.make())
    assert expected == {n for n in record.skipped if "not supported" not in record.skipped[n]}
    assert record.converted or name in ("ViT", "MViT")
    inside = nn.ModuleDict({"student": build()})  # wherever a model has it
    record = ternarize(inside, {}, prefix="teacher.")
    assert {f"teacher.student.{each}" for each in expected} <= record.skipped.keys()


def head(kind, *names, base=nn.Module):
    """A head of a project that is not installed, by the name of its class."""
    built = type(kind, (base,), {})()
    for name in names:
        setattr(built, name, nn.Linear(4, 4))
    built.other = nn.Linear(4, 4)
    return built


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        ("StandardPointHead", "predictor"),
        ("ConvFCHead", "prediction"),
        ("DensePoseChartPredictor", "ann_index_lowres"),
        ("DensePoseEmbeddingPredictor", "embed_lowres"),
        ("DeepLabV3PlusHead", "center_predictor"),
        ("SemSegFPNHead", "predictor"),
        ("TensorMaskHead", "cls_score"),
        ("KRCNNConvDeconvUpsampleHead", "score_lowres"),
        ("Anything", "my_predictor"),
    ],
)
def test_heads_of_projects_by_the_name_of_their_class(kind, last):
    base = type(head(kind))
    for built in (head(kind, last), head("Own" + kind, last, base=base)):
        record = ternarize(nn.ModuleDict({"x": built}), {})
        assert set(record.skipped) == {f"x.{last}"} and set(record.converted) == {"x.other"}


def test_a_users_patterns_add_and_take_back():
    def skipped(*patterns):
        model = nn.ModuleDict({"a": head("StandardPointHead", "predictor")})
        return set(ternarize(model, {"skip": list(patterns)}).skipped)

    assert skipped() == {"a.predictor"}
    assert skipped("a.other") == {"a.predictor", "a.other"}
    assert skipped("!a.predictor") == set()
    assert skipped("!*", "a.other") == {"a.other"}
    assert skipped("a.other", "!*") == set()


@pytest.mark.parametrize(
    ("layer", "kept"),
    [
        (lambda: nn.Conv2d(6, 6, 3, groups=6), True),
        (lambda: nn.Conv2d(6, 12, 3, groups=6), True),  # two filters a channel
        (lambda: nn.Conv1d(6, 6, 3, groups=6), True),
        (lambda: nn.ConvTranspose2d(6, 6, 2, groups=6), True),
        (lambda: nn.Conv2d(6, 6, 3, groups=3), False),
        (lambda: nn.Conv2d(1, 6, 3), False),  # all that it has is one channel
        (lambda: nn.Linear(6, 6), False),
    ],
)
def test_depthwise_convolutions(layer, kept):
    def skipped(**settings):
        return ternarize(nn.ModuleDict({"x": layer()}), settings).skipped

    expected = {"x": "a depthwise convolution stays in float"} if kept else {}
    assert skipped() == expected
    assert skipped(quantizer="SQuantizer", bits=4, freeze_start=1.0) == expected
    assert skipped(skip=["!x"]) == {}
    # 8 bits with a shift a channel are for them above all
    assert skipped(quantizer="ShiftScaler", freeze_start=1.0) == {}


def test_reasons_name_what_keeps_a_layer():
    model = nn.ModuleDict({"a": head("StandardPointHead", "predictor")})
    assert kept_layers(model)[model["a"].predictor] == (
        "'predictor' of a StandardPointHead stays in float"
    )
    record = ternarize(model, {"skip": ["a.other", "*predictor"]})
    assert record.skipped == {
        "a.other": "TERNARY.SKIP has 'a.other'",
        "a.predictor": "TERNARY.SKIP has '*predictor'",
    }


def test_an_architecture_of_ones_own(monkeypatch):
    monkeypatch.setattr(module, "_KEPT", dict(module._KEPT))
    keep_in_float("MyHead", "out*")
    keep_in_float("MyHead", "score")
    record = ternarize(nn.ModuleDict({"x": head("MyHead", "out1", "score")}), {})
    assert set(record.skipped) == {"x.out1", "x.score"}


def test_what_makes_scores_boxes_and_masks_of_a_recipe_stays_in_float():
    cfg = model_zoo.get_config("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml")
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_float_model(cfg)
    skipped = ternarize(model, {}).skipped
    assert not [n for n in skipped if not n.startswith("backbone.bottom_up.") and "pred" not in n
                and "rpn_head" not in n]  # fmt: skip
    assert "sem_seg_head.predictor" in skipped and "roi_heads.mask_head.predictor" in skipped
    assert "backbone.bottom_up.res2.0.conv1" in skipped
    assert "backbone.bottom_up.res3.0.conv1" not in skipped


def test_fcos_by_its_lazy_config():
    cfg = model_zoo.get_config("COCO-Detection/fcos_R_50_FPN_1x.py").model
    with torch.device("meta"):
        model = instantiate(cfg)
    skipped = ternarize(model, {}).skipped
    assert {"head.cls_score", "head.bbox_pred", "head.ctrness"} <= skipped.keys()


def test_the_table_of_the_usage_page_is_the_registry(repo):
    text = (repo / "docs/usage.md").read_text()
    text = text.split("## Layers that stay in float\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    told = {row[0].strip("`"): tuple(re.findall("`([^`]+)`", row[1])) for row in rows}
    assert {kind: told.get(kind) for kind in module._KEPT} == module._KEPT
    names = text.split("in any model: ")[1].split(".\n")[0]
    assert tuple(re.findall("`([^`]+)`", names)) == module._NAMES
