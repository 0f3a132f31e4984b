"""Networks with layers of other types than Detectron2's recipes have: packed, loaded, the same."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import BACKBONE_REGISTRY, FPN
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.regnet import AnyNet, ResBottleneckBlock, SimpleStem
from torch import nn

from ptq_det import load_packed, pack_model, ternarize
from ptq_det.errors import EngineError
from ptq_det.inference import build_packed, calibrate
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing.packed_model import PackedModel
from ptq_det.packing.report import measure_size
from ptq_det.packing.rounding import round_to_packed
from ptq_det.ternary.deformable import TernaryDeformConv, TernaryModulatedDeformConv
from ptq_det.ternary.layers import TernaryConv1d
from ptq_det.ternary.ternarize import ternary_layers
from tests.modeling.test_architectures import PICTURE, flat, narrow


class BatchStatistics(nn.BatchNorm2d):
    """Rethinking-BN's: normalizes by its batch in evaluation too."""

    def forward(self, x):
        return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)


class SharedConv(nn.Module):
    """TridentNet's: one weight for several dilations, with a norm inside."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(0.05 * torch.randn(channels, channels, 3, 3))
        self.bias = None
        self.norm = FrozenBatchNorm2d(channels)

    def forward(self, x):
        outputs = [F.conv2d(x, self.weight, None, 1, d, d) for d in (1, 2, 3)]
        return sum(self.norm(y) for y in outputs)


class PointHead(nn.Module):
    """PointRend's: 1-D convolutions over points."""

    def __init__(self, channels):
        super().__init__()
        self.fc1 = nn.Conv1d(channels, 64, 1)
        self.predictor = nn.Conv1d(64, channels, 1)

    def forward(self, x):
        return self.predictor(self.fc1(x.flatten(2)).relu()).reshape(x.shape)


class Positions(nn.Module):
    """A transformer's: learned positions and a layer norm."""

    def __init__(self, channels):
        super().__init__()
        self.position = nn.Parameter(0.1 * torch.randn(1, channels, 32, 32))
        self.norm = nn.LayerNorm(channels)
        with torch.no_grad():
            self.norm.weight.uniform_(0.5, 1.5)

    def forward(self, x):
        x = x + F.interpolate(self.position, x.shape[2:])
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


PARTS = {"regnet": nn.Identity, "shared": SharedConv, "points": PointHead, "positions": Positions}


class WithPart(FPN):
    def forward(self, x):
        features = super().forward(x)
        return {**features, "p4": self.part(features["p4"])}


def _register(name):
    def build(cfg, input_shape):
        norm = "BN" if name != "batch statistics" else BatchStatistics
        regnet = AnyNet(
            stem_class=SimpleStem,
            stem_width=8,
            block_class=ResBottleneckBlock,
            depths=[1, 1, 1, 2],
            widths=[16, 16, 32, 32],
            group_widths=[8, 8, 8, 8],
            strides=[2, 2, 2, 2],
            bottleneck_ratios=[1, 1, 1, 1],
            se_ratio=0.25,
            activation_class=nn.ReLU,
            norm=norm,
            out_features=["s1", "s2", "s3", "s4"],
        )
        backbone = WithPart(
            bottom_up=regnet,
            in_features=["s1", "s2", "s3", "s4"],
            out_channels=32,
            top_block=LastLevelMaxPool(),
        )
        backbone.part = PARTS.get(name, nn.Identity)(32)
        return backbone

    build.__name__ = f"build_{name.replace(' ', '_')}_test_backbone"
    BACKBONE_REGISTRY.register(build)
    return build.__name__


BUILDERS = {name: _register(name) for name in (*PARTS, "batch statistics")}


def config(name, recipe="COCO-Detection/rpn_R_50_FPN_1x"):
    cfg = narrow(recipe)
    if name in BUILDERS:
        cfg.MODEL.BACKBONE.NAME = BUILDERS[name]
    else:
        cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False, False, True, True]
        cfg.MODEL.RESNETS.DEFORM_MODULATED = name == "modulated"
    return cfg


def built(name, randomize_norms):
    cfg = config(name)
    model = build_float_model(cfg)
    randomize_norms(model)
    ternarize(model, cfg)
    return model.eval(), cfg


def features(model):
    x = (PICTURE["image"][None].float() - model.pixel_mean) / model.pixel_std
    with torch.no_grad():
        return flat(model.backbone(x))


def difference(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", [*BUILDERS, "deformable"])
def test_packed_and_loaded_they_compute_the_same(name, randomize_norms, tmp_path):
    model, cfg = built(name, randomize_norms)
    expected, path = features(model), tmp_path / "m.safetensors"
    pack_model(model, cfg, path)
    # Rounding to 8 bits; norms of batch statistics divide by what it has changed too.
    allowed = 0.1 if name == "batch statistics" else 0.03
    assert difference(features(load_packed(path, "cpu")), expected) < allowed
    for layer in ternary_layers(model).values():
        layer.snap()
    round_to_packed(model, "int8")
    rounded = features(model)
    pack_model(model, cfg, path)
    assert difference(features(load_packed(path, "cpu")), rounded) < 1e-5


@pytest.mark.parametrize("name", [*BUILDERS, "deformable"])
def test_no_matrix_is_left_in_float32(name, randomize_norms, tmp_path):
    model, cfg = built(name, randomize_norms)
    packed = PackedModel.of(model, cfg)
    in_float = {n: a.size for n, a in packed.others.tensors.items() if a.dtype == "float32"}
    assert all(size <= 32 for size in in_float.values()), in_float
    kept = {"shared", "batch statistics"}  # whose norms have statistics of their own
    assert bool(in_float) == (name in kept), in_float
    report = measure_size(packed, tmp_path / "m.safetensors")
    assert report.verified
    assert report.float_bytes > 5 * (report.file_bytes - report.parts["container"]["file_bytes"])


def test_one_dimensional_convolutions_are_ternary(randomize_norms, tmp_path):
    model, cfg = built("points", randomize_norms)
    assert type(model.backbone.part.fc1) is TernaryConv1d
    layers = PackedModel.of(model, cfg).layers
    assert layers["backbone.part.fc1"].kind == "ternary"
    assert layers["backbone.part.predictor"].kind == "int8"


def test_matrices_of_no_layer_are_in_8_bits(randomize_norms):
    for name, key in (("shared", "weight"), ("positions", "position")):
        packed = PackedModel.of(*built(name, randomize_norms))
        assert set(packed.others.parameters) == {f"backbone.part.{key}"}


@pytest.mark.parametrize(
    ("name", "kind"), [("deformable", TernaryDeformConv), ("modulated", TernaryModulatedDeformConv)]
)
def test_deformable_convolutions_are_ternary(name, kind, randomize_norms, caplog, tmp_path):
    model, cfg = built(name, randomize_norms)
    path = tmp_path / "m.safetensors"
    pack_model(model, cfg, path)
    does_not_run = "does not run on a picture of 64 x 64 pixels on the CPU (Deformable Conv"
    assert (does_not_run in caplog.text) == (name == "modulated")
    loaded = load_packed(path, "cpu")
    for n, layer in ternary_layers(model).items():
        if type(layer) is kind:
            value = layer.codes_and_value()[1]
            weight = loaded.get_submodule(n).weight
            assert torch.equal(
                weight.sign(), value.sign() * layer.norm.weight.sign().reshape(-1, 1, 1, 1)
            )
    assert sum(type(x) is kind for x in ternary_layers(model).values()) == 9


def test_deformable_convolutions_in_8_bits(randomize_norms, tmp_path):
    cfg = config("deformable")
    model = build_float_model(cfg)
    randomize_norms(model)
    cfg.TERNARY.SKIP = ["*conv2"]
    ternarize(model, cfg)
    expected = features(model.eval())
    pack_model(model, cfg, tmp_path / "m.safetensors")
    packed = PackedModel.read(tmp_path / "m.safetensors")
    assert packed.layers["backbone.bottom_up.res4.0.conv2"].kind == "int8"
    assert not packed.others.shapes()
    assert difference(features(packed.build("cpu")), expected) < 0.03


def test_engines_on_integers_say_that_they_do_not_run_them():
    cfg = config("deformable", "COCO-Detection/faster_rcnn_R_50_FPN_1x")
    model = build_float_model(cfg)
    ternarize(model, cfg)
    packed = PackedModel.of(model.eval(), cfg)
    packed.ranges = calibrate(packed.build("cpu"), [[PICTURE]])
    with pytest.raises(EngineError, match="is a DeformBottleneckBlock"):
        build_packed(packed, "cpu", "int8")


def test_a_plain_checkpoint_has_them_all(randomize_norms):
    for name in ("positions", "deformable"):
        model, cfg = built(name, randomize_norms)
        plain = build_float_model(cfg)
        result = plain.load_state_dict(PackedModel.of(model, cfg).state_dict(), strict=False)
        assert not result.unexpected_keys
        assert not [key for key in result.missing_keys if "num_batches" not in key]
        assert difference(features(plain.eval()), features(model)) < 0.03
