"""Existing configs become ternary by config keys alone."""

import pytest
from detectron2 import model_zoo

from ptq_det import add_ternary_config, ternarize
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.ternary.ternarize import ternary_layers


def zoo(name):
    cfg = model_zoo.get_config(name)
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def whole(cfg) -> set[str]:
    """Layers that the single switch makes ternary."""
    cfg = cfg.clone()
    add_ternary_config(cfg)
    record = ternarize(build_float_model(cfg), cfg)
    return {*record.converted, *record.already}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        (
            "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml",
            ["MODEL.ROI_HEADS.NAME", "TernaryStandardROIHeads"],
        ),
        (
            "Misc/cascade_mask_rcnn_R_50_FPN_3x.yaml",
            ["MODEL.ROI_HEADS.NAME", "TernaryCascadeROIHeads"],
        ),
    ],
)
def test_builders_give_what_the_switch_gives(name, keys):
    cfg = zoo(name)
    expected = whole(cfg)
    cfg.merge_from_list(
        ["MODEL.BACKBONE.NAME", "build_ternary_resnet_fpn_backbone"]
        + ["MODEL.RPN.HEAD_NAME", "TernaryRPNHead", *keys]
    )
    assert set(ternary_layers(build_float_model(cfg))) == expected


def test_c4_builders_give_what_the_switch_gives():
    cfg = zoo("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml")
    expected = whole(cfg)
    cfg.merge_from_list(
        ["MODEL.BACKBONE.NAME", "build_ternary_resnet_backbone"]
        + ["MODEL.RPN.HEAD_NAME", "TernaryRPNHead"]
        + ["MODEL.ROI_HEADS.NAME", "TernaryRes5ROIHeads"]
    )
    assert set(ternary_layers(build_float_model(cfg))) == expected


def test_each_head_can_be_ternary_alone():
    cfg = zoo("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")
    cfg.merge_from_list(
        ["MODEL.ROI_BOX_HEAD.NAME", "TernaryFastRCNNConvFCHead"]
        + ["MODEL.ROI_MASK_HEAD.NAME", "TernaryMaskRCNNConvUpsampleHead"]
    )
    names = set(ternary_layers(build_float_model(cfg)))
    heads = ("roi_heads.box_head.", "roi_heads.mask_head.")
    assert names == {n for n in whole(cfg) if n.startswith(heads)} and len(names) == 7


def test_retinanet_fpn():
    cfg = zoo("COCO-Detection/retinanet_R_50_FPN_1x.yaml")
    cfg.MODEL.BACKBONE.NAME = "build_ternary_retinanet_resnet_fpn_backbone"
    names = set(ternary_layers(build_float_model(cfg)))
    assert names == {n for n in whole(cfg) if n.startswith("backbone.")}
    assert "backbone.top_block.p6" in names and "backbone.bottom_up.res5.2.conv3" in names


def test_builders_read_the_node_where_there_is_one():
    cfg = zoo("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")
    add_ternary_config(cfg)
    cfg.TERNARY.SPARSITY = 0.6
    cfg.TERNARY.SKIP = ["roi_heads.box_head.fc1", *cfg.TERNARY.SKIP]
    cfg.MODEL.ROI_BOX_HEAD.NAME = "TernaryFastRCNNConvFCHead"
    layers = ternary_layers(build_float_model(cfg))
    assert list(layers) == ["roi_heads.box_head.fc2"]
    assert layers["roi_heads.box_head.fc2"].ternary.sparsity == 0.6
