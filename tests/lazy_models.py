"""Narrow models of lazy configs, for tests: those of Detectron2's own, with few channels."""

import importlib.util
import sys
from types import ModuleType

from detectron2 import model_zoo
from detectron2.config import LazyCall
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import BasicBlock, ResNet
from torch import nn

__all__ = ["narrow_new_baseline", "narrow_rcnn", "narrow_retinanet", "narrow_vitdet"]


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
    model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
    narrow_heads(model)
    narrow_backbone(model)
    return model


def narrow_new_baseline():
    """Node of the new baselines' Mask R-CNN with narrow layers, on norms that a CPU has."""
    model = model_zoo.get_config("new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py").model
    narrow_heads(model)
    narrow_backbone(model)
    model.backbone.norm = "BN"
    return model


class Mlp(nn.Module):
    """As timm has it, with the names of its layers."""

    def __init__(self, in_features, hidden_features, act_layer):
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden_features, in_features)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


def narrow_vitdet():
    """Node of ViTDet with two narrow blocks, of which one has windows.

    Detectron2's ViT takes two small modules from timm; where that is not installed they are ours.
    """
    if importlib.util.find_spec("timm") is None:
        layers = ModuleType("timm.models.layers")
        layers.DropPath, layers.Mlp = nn.Identity, Mlp
        for module in (ModuleType("timm"), ModuleType("timm.models"), layers):
            module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
            sys.modules[module.__name__] = module
    model = model_zoo.get_config("common/models/mask_rcnn_vitdet.py").model
    narrow_heads(model)
    model.backbone.out_channels, model.backbone.square_pad = 16, 64
    net = model.backbone.net
    net.img_size, net.embed_dim, net.depth, net.num_heads = 64, 16, 2, 2
    net.window_size, net.window_block_indexes, net.drop_path_rate = 2, [0], 0.0
    return model


def narrow_retinanet():
    """Node of RetinaNet with narrow layers."""
    model = model_zoo.get_config("common/models/retinanet.py").model
    narrow_backbone(model)
    model.backbone.top_block.in_channels = 32
    model.backbone.top_block.out_channels = 16
    model.head.input_shape = [ShapeSpec(channels=16)] * 5
    model.head.conv_dims = [16, 16]
    model.num_classes = 2
    return model
