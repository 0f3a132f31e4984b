"""Narrow models of lazy configs, for tests: those of Detectron2's own, with few channels."""

import importlib.util
import sys
from types import ModuleType

from detectron2.config import LazyCall
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import BasicBlock, ResNet
from omegaconf import DictConfig
from torch import nn

from ptq_det.data.zoo import zoo_config

__all__ = [
    "narrow_batch_stats",
    "narrow_fcos",
    "narrow_mvit",
    "narrow_new_baseline",
    "narrow_rcnn",
    "narrow_regnet_rcnn",
    "narrow_retinanet",
    "narrow_swin",
    "narrow_vitdet",
]


def narrow_heads(model, channels=16, classes=2):
    """Heads of Mask R-CNN with few channels, in place."""
    model.proposal_generator.head.in_channels = channels
    heads = model.roi_heads
    heads.box_head.fc_dims = [channels] * len(heads.box_head.fc_dims)
    heads.box_head.conv_dims = [channels] * len(heads.box_head.conv_dims)
    heads.box_head.input_shape.channels = channels
    heads.box_predictor.input_shape.channels = channels
    heads.mask_head.input_shape.channels = channels
    heads.mask_head.conv_dims = [channels, channels]
    heads.num_classes = classes


def narrow_backbone(model, channels=16, norm="BN"):
    """A ResNet of four blocks with FPN, in place."""
    model.backbone.out_channels = channels
    model.backbone.bottom_up.pop("freeze_at", None)
    stem = model.backbone.bottom_up.stem
    stem.out_channels, stem.norm = 8, norm
    stage = LazyCall(ResNet.make_stage)
    model.backbone.bottom_up.stages = [
        stage(
            block_class=BasicBlock, num_blocks=1, in_channels=8 * max(1, i), norm=norm,
            out_channels=8 * (i + 1), stride_per_block=[1 + (i > 0)],
        )
        for i in range(4)
    ]  # fmt: skip


def narrow_rcnn():
    """Node of Mask R-CNN with narrow layers."""
    model = zoo_config("common/models/mask_rcnn_fpn.py").model
    narrow_heads(model)
    narrow_backbone(model)
    return model


def narrow_new_baseline():
    """Node of the new baselines' Mask R-CNN with narrow layers, on norms that a CPU has."""
    model = zoo_config("new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py").model
    narrow_heads(model)
    narrow_backbone(model)
    model.backbone.norm = "BN"
    return model


class Mlp(nn.Module):
    """As timm has it, with the names of its layers."""

    def __init__(self, in_features, hidden_features, out_features=None, act_layer=nn.GELU):
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden_features, out_features or in_features)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


def without_timm():
    """Transformers of Detectron2 take two small modules from timm; where that is not installed,
    let them have ours."""
    if importlib.util.find_spec("timm") is None:
        layers = ModuleType("timm.models.layers")
        layers.DropPath, layers.Mlp = nn.Identity, Mlp
        for module in (ModuleType("timm"), ModuleType("timm.models"), layers):
            module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
            sys.modules[module.__name__] = module


def narrow_vitdet():
    """Node of ViTDet with two narrow blocks, of which one has windows."""
    without_timm()
    model = zoo_config("common/models/mask_rcnn_vitdet.py").model
    narrow_heads(model)
    model.backbone.out_channels, model.backbone.square_pad = 16, 64
    net = model.backbone.net
    net.img_size, net.embed_dim, net.depth, net.num_heads = 64, 16, 2, 2
    net.window_size, net.window_block_indexes, net.drop_path_rate = 2, [0], 0.0
    return model


def narrow_retinanet():
    """Node of RetinaNet with narrow layers."""
    model = zoo_config("common/models/retinanet.py").model
    narrow_backbone(model)
    model.backbone.top_block.in_channels = 32
    model.backbone.top_block.out_channels = 16
    model.head.input_shape = [ShapeSpec(channels=16)] * 5
    model.head.conv_dims = [16, 16]
    model.num_classes = 2
    return model


def narrow_fcos():
    """Node of FCOS with layers as narrow as group norms let them be on maps of one pixel."""
    model = zoo_config("COCO-Detection/fcos_R_50_FPN_1x.py").model
    narrow_backbone(model, 64)
    model.backbone.top_block.in_channels = model.backbone.top_block.out_channels = 64
    model.head.input_shape = [ShapeSpec(channels=64)] * 5
    model.head.conv_dims = [64]
    model.num_classes = 2
    return model


def narrow_regnet_rcnn():
    """Node of Mask R-CNN on a RegNet of four narrow stages."""
    model = zoo_config("COCO-InstanceSegmentation/mask_rcnn_regnetx_4gf_dds_fpn_1x.py").model
    narrow_heads(model)
    model.backbone.out_channels = 16
    model.backbone.bottom_up.update(
        stem_width=8, depth=6, w_a=8, w_0=8, w_m=2.0, group_width=4, freeze_at=0, norm="BN"
    )
    return model


def narrow_cascade(model: DictConfig, channels: int = 16):
    """A project's cascade on a transformer, narrow around its own backbone, in place."""
    without_timm()
    model.backbone.out_channels, model.backbone.square_pad = channels, 64
    model.proposal_generator.head.in_channels = channels
    heads = model.roi_heads
    for head, predictor in zip(heads.box_heads, heads.box_predictors, strict=True):
        head.input_shape = ShapeSpec(channels=channels, height=7, width=7)
        head.conv_dims, head.fc_dims = [channels], [channels]
        predictor.input_shape = ShapeSpec(channels=channels)
    heads.mask_head.input_shape.channels = channels
    heads.mask_head.conv_dims = [channels, channels]


def narrow_swin(model: DictConfig) -> DictConfig:
    """A project's cascade on Swin with a narrow block a stage."""
    narrow_cascade(model)
    model.backbone.bottom_up.update(
        depths=[1, 1, 1, 1], embed_dim=8, num_heads=[1, 1, 2, 2], window_size=4, drop_path_rate=0.0
    )
    return model


def narrow_mvit(model: DictConfig) -> DictConfig:
    """A project's cascade on MViTv2 with a narrow block a stage."""
    narrow_cascade(model)
    model.backbone.bottom_up.update(
        img_size=64, embed_dim=8, depth=4, last_block_indexes=(0, 1, 2, 3), drop_path_rate=0.0,
        adaptive_window_size=16,
    )  # fmt: skip
    return model


def narrow_batch_stats(model: DictConfig) -> DictConfig:
    """Rethinking-BatchNorm's Mask R-CNN, whose heads' norms use the statistics of the batch in
    evaluation too, with narrow layers."""
    narrow_heads(model)
    narrow_backbone(model)
    return model
