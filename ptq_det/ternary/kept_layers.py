"""Layers that stay in float by default: first and last ones of known architectures, and depthwise.

The first and last ones are found by the names of classes, so that no project has to be imported,
wherever a model has such a part.
"""

import fnmatch

from torch import nn
from torch.nn.modules.conv import _ConvNd

__all__ = ["keep_in_float", "kept_layers"]

# Patterns of full names: parts of Detectron2's own, and of projects that nobody has listed.
_NAMES = ("*stem.*", "*predictor*", "*rpn_head.objectness_logits", "*rpn_head.anchor_deltas")

# By the name of a class, its own or one that it inherits from: patterns of names within it.
_KEPT: dict[str, tuple[str, ...]] = {
    # What sees pixels, and what is as sensitive as res5 at 0.5 % of the weights (docs/results.md)
    "ResNet": ("res2.*", "conv1"),  # Detectron2's; torchvision's
    "MobileNetV2": ("features.0.*",),
    "PatchEmbed": ("proj",),  # ViT, MViT, Swin
    "PoseHigherResolutionNet": ("conv1", "conv2"),  # DensePose's HRNet
    # What says where others look
    "DeformBottleneckBlock": ("conv2_offset",),
    # What makes scores, boxes, masks and points
    "StandardRPNHead": ("objectness_logits", "anchor_deltas"),
    "FastRCNNOutputLayers": ("cls_score", "bbox_pred"),
    "RetinaNetHead": ("cls_score", "bbox_pred"),
    "FCOSHead": ("ctrness",),
    "MaskRCNNConvUpsampleHead": ("predictor",),
    "KRCNNConvDeconvUpsampleHead": ("score_lowres",),
    "SemSegFPNHead": ("predictor",),
    "DeepLabV3Head": ("predictor",),
    "DeepLabV3PlusHead": ("predictor", "center_predictor", "offset_predictor"),
    "ConvFCHead": ("prediction",),  # PointRend's coarse masks
    "StandardPointHead": ("predictor",),
    "TensorMaskHead": ("cls_score", "bbox_pred", "mask_pred_*"),
    "DensePoseChartPredictor": ("*_lowres",),
    "DensePoseChartConfidencePredictorMixin": ("*_lowres",),
    "DensePoseEmbeddingPredictor": ("*_lowres",),
    "DensePoseEmbeddingConfidencePredictorMixin": ("*_lowres",),
}


def keep_in_float(kind: str, *patterns: str) -> None:
    """Let layers of an architecture stay in float, as ``TERNARY.SKIP`` does for one config.

    Args:
        kind: name of a class, e.g. of a head of your own; subclasses count too.
        patterns: of names of layers within a module of this class (fnmatch).
    """
    _KEPT[kind] = (*_KEPT.get(kind, ()), *patterns)


def kept_layers(
    model: nn.Module, prefix: str = "", *, depthwise: bool = True
) -> dict[nn.Module, str]:
    """Modules of a model, or of a part of one, that stay in float by default, with the reason.

    Args:
        prefix: full name of the part with a dot at its end.
        depthwise: depthwise convolutions are among them. With 80 % zeros a filter of theirs has two
            weights of nine left, and they are few: 2 % of a MobileNetV2 and 8 AP (docs/results.md).
    """
    found: dict[nn.Module, str] = {}
    for name, part in model.named_modules():
        if depthwise and isinstance(part, _ConvNd) and 1 < part.groups == part.in_channels:
            found[part] = "a depthwise convolution stays in float"
        pattern = _matching(prefix + name, _NAMES)
        if pattern is not None:
            found[part] = f"{pattern!r} stays in float"
    for part in model.modules():
        for kind in type(part).__mro__:
            for inner, module in part.named_modules() if kind.__name__ in _KEPT else ():
                pattern = _matching(inner, _KEPT[kind.__name__])
                if pattern is not None:
                    found[module] = f"{pattern!r} of a {kind.__name__} stays in float"
    return found


def _matching(name: str, patterns: tuple[str, ...]) -> str | None:
    return next((each for each in patterns if fnmatch.fnmatchcase(name, each)), None)
