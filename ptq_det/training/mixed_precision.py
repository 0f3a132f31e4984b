"""Mixed precision on CPUs, which Detectron2's ``AMPTrainer`` has for CUDA alone."""

import torch
from detectron2.modeling.roi_heads.keypoint_head import KRCNNConvDeconvUpsampleHead
from torch import nn

__all__ = ["use_bfloat16", "use_channels_last"]

_HEADS = ("mask", "keypoint")


def use_bfloat16(model: nn.Module) -> None:
    """Let a model's forward pass in training run under ``torch.autocast`` with bfloat16.

    Losses need no scaling, as bfloat16 has float32's range. The backbone's features leave it as
    float32: poolers round boxes to the type of the features, and bfloat16 has eight bits for a
    coordinate.

    Args:
        model: of Detectron2, on the CPU; changed by hooks, in training mode only.
    """
    autocast = torch.autocast("cpu", dtype=torch.bfloat16)

    def enter(module, args):
        if module.training:
            autocast.__enter__()

    def leave(module, args, output):
        if module.training:
            autocast.__exit__(None, None, None)

    model.register_forward_pre_hook(enter)
    model.register_forward_hook(leave, always_call=True)
    model.backbone.register_forward_hook(_in_float32)


def _in_float32(module, args, output):
    """Features of other types stay as they are: a packed model is compared in float64."""
    return {
        name: features.float() if features.dtype == torch.bfloat16 else features
        for name, features in output.items()
    }


def use_channels_last(model: nn.Module) -> None:
    """Let a model's convolutions work in channels-last, which CPUs are faster in.

    Weights stay as they are: it is the inputs of backbone and of mask and keypoint head that are
    laid out anew. Keypoint heads of other classes than Detectron2's are left alone.

    Args:
        model: of Detectron2; changed by hooks.
    """
    model.backbone.register_forward_pre_hook(_channels_last)
    heads = getattr(model, "roi_heads", None)
    mask_head, keypoint_head = (getattr(heads, f"{name}_head", None) for name in _HEADS)
    if isinstance(mask_head, nn.Module):
        mask_head.register_forward_pre_hook(_channels_last)
    if isinstance(keypoint_head, KRCNNConvDeconvUpsampleHead):
        keypoint_head.register_forward_pre_hook(_channels_last)
        # Loss and inference view the heatmaps of a keypoint as one row.
        keypoint_head.score_lowres.register_forward_hook(_contiguous)


def _channels_last(module, args):
    first, *others = args
    if isinstance(first, dict):  # of levels, as PointRend's mask head takes them
        return ({name: _laid_out(x) for name, x in first.items()}, *others)
    return (_laid_out(first), *others)


def _laid_out(x):
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _contiguous(module, args, output):
    return output.contiguous()
