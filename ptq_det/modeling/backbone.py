"""Ternary ResNet backbones, registered with Detectron2."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone import build_resnet_backbone
from detectron2.modeling.backbone.fpn import (
    build_resnet_fpn_backbone,
    build_retinanet_resnet_fpn_backbone,
)

from ..ternary.ternarize import ternarize

__all__ = [
    "build_ternary_resnet_backbone",
    "build_ternary_resnet_fpn_backbone",
    "build_ternary_retinanet_resnet_fpn_backbone",
]


def _ternary(backbone: Backbone, cfg: CfgNode) -> Backbone:
    ternarize(backbone, cfg, prefix="backbone.")
    return backbone


@BACKBONE_REGISTRY.register()
def build_ternary_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """``build_resnet_backbone`` with ternary weights."""
    return _ternary(build_resnet_backbone(cfg, input_shape), cfg)


@BACKBONE_REGISTRY.register()
def build_ternary_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """``build_resnet_fpn_backbone`` with ternary weights, FPN included."""
    return _ternary(build_resnet_fpn_backbone(cfg, input_shape), cfg)


@BACKBONE_REGISTRY.register()
def build_ternary_retinanet_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """``build_retinanet_resnet_fpn_backbone`` with ternary weights, FPN included."""
    return _ternary(build_retinanet_resnet_fpn_backbone(cfg, input_shape), cfg)
