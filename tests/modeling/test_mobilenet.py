import pytest
import torch
import torchvision
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone
from torch import nn

from ptq_det import add_ternary_config, load_packed, pack_model, ternarize
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.modeling.mobilenet import MobileNetV2


@pytest.fixture
def mobilenet_cfg(cfg):
    cfg.MODEL.BACKBONE.NAME = "build_mobilenet_v2_fpn_backbone"
    cfg.MODEL.FPN.NORM = ""
    defaults = get_cfg()
    add_ternary_config(defaults)
    cfg.TERNARY.SKIP = defaults.TERNARY.SKIP
    return cfg


def test_maps_are_those_of_torchvision():
    network = torchvision.models.mobilenet_v2(weights=None).eval()
    backbone = MobileNetV2("BN").eval()
    missing, _ = backbone.load_state_dict(network.state_dict(), strict=False)
    assert not missing
    x = torch.randn(1, 3, 64, 96)
    outputs = backbone(x)
    assert torch.equal(outputs["res4"], network.features[:14](x))
    for name, shape in backbone.output_shape().items():
        assert outputs[name].shape == (1, shape.channels, 64 // shape.stride, 96 // shape.stride)
    assert [s.channels for s in backbone.output_shape().values()] == [24, 32, 96, 320]


@pytest.mark.parametrize(("freeze_at", "blocks"), [(0, 0), (1, 1), (2, 4), (5, 18)])
def test_stages_are_frozen_from_the_first(freeze_at, blocks):
    backbone = MobileNetV2("BN", freeze_at)
    frozen = [not any(p.requires_grad for p in block.parameters()) for block in backbone.features]
    assert frozen == [i < blocks for i in range(18)]
    norms = [m for block in backbone.features[:blocks] for m in block.modules()]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in norms)


def test_the_pyramid_has_five_levels(mobilenet_cfg):
    backbone = build_backbone(mobilenet_cfg)
    assert [s.stride for s in backbone.output_shape().values()] == [4, 8, 16, 32, 64]


def test_it_is_packed_with_its_norms_folded(mobilenet_cfg, tmp_path):
    model = build_float_model(mobilenet_cfg)
    record = ternarize(model, mobilenet_cfg)
    assert "backbone.bottom_up.features.0.0" in record.skipped
    assert "backbone.bottom_up.features.2.conv.0.0" in record.converted
    assert "backbone.bottom_up.features.2.conv.1.0" in record.skipped  # depthwise
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    pack_model(model.eval(), mobilenet_cfg, tmp_path / "m.safetensors")
    loaded = load_packed(tmp_path / "m.safetensors", "cpu")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in loaded.modules())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for name, expected in model.backbone(x).items():
            found = loaded.backbone(x)[name]
            assert float((found - expected).norm() / expected.norm()) < 0.03, name
