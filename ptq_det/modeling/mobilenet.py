"""MobileNetV2 (arXiv 1801.04381) as a backbone, registered with Detectron2."""

from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from torch import nn
from torchvision.models import mobilenet_v2

__all__ = ["MobileNetV2", "build_mobilenet_v2_backbone", "build_mobilenet_v2_fpn_backbone"]

# Last block of each stage among torchvision's features; the last of them, for classification, is
# left out.
_STAGES = {"res2": 3, "res3": 6, "res4": 13, "res5": 17}


class MobileNetV2(Backbone):
    """torchvision's MobileNetV2, whose maps at strides 4 to 32 are called res2 to res5.

    Layers keep torchvision's names, so a checkpoint of it loads with
    ``MODEL.WEIGHTS "mobilenet_v2.pth?matching_heuristics=True"``.

    Args:
        norm: of :func:`detectron2.layers.get_norm`, e.g. "FrozenBN".
        freeze_at: as ``MODEL.BACKBONE.FREEZE_AT``: 1 freezes the first convolution, 2 the stage
            res2 too, and so on; 0 nothing.
    """

    def __init__(self, norm: str, freeze_at: int = 0):
        super().__init__()
        network = mobilenet_v2(norm_layer=lambda channels: get_norm(norm, channels))
        self.features = network.features[: _STAGES["res5"] + 1]
        self._out_features = list(_STAGES)
        self._out_feature_strides = {name: 4 << i for i, name in enumerate(_STAGES)}
        self._out_feature_channels = {
            name: _last_convolution(self.features[last]).out_channels
            for name, last in _STAGES.items()
        }
        ends = [0, *_STAGES.values()][:freeze_at]
        for block in self.features[: ends[-1] + 1 if ends else 0]:
            block.requires_grad_(False)
            FrozenBatchNorm2d.convert_frozen_batchnorm(block)

    def forward(self, x):
        outputs = {}
        names = {last: name for name, last in _STAGES.items()}
        for index, block in enumerate(self.features):
            x = block(x)
            if index in names:
                outputs[names[index]] = x
        return outputs

    @property
    def size_divisibility(self) -> int:
        return 32


def _last_convolution(block: nn.Module) -> nn.Conv2d:
    return [module for module in block.modules() if isinstance(module, nn.Conv2d)][-1]


@BACKBONE_REGISTRY.register()
def build_mobilenet_v2_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> MobileNetV2:
    """MobileNetV2 with the norm of ``MODEL.RESNETS.NORM``."""
    return MobileNetV2(cfg.MODEL.RESNETS.NORM, cfg.MODEL.BACKBONE.FREEZE_AT)


@BACKBONE_REGISTRY.register()
def build_mobilenet_v2_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """MobileNetV2 with a feature pyramid, as ``build_resnet_fpn_backbone``."""
    return FPN(
        bottom_up=build_mobilenet_v2_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
