"""Ternary RPN head, ROI heads, box head and mask head, registered with Detectron2."""

from detectron2.config import configurable
from detectron2.modeling.proposal_generator.rpn import RPN_HEAD_REGISTRY, StandardRPNHead
from detectron2.modeling.roi_heads import (
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    CascadeROIHeads,
    FastRCNNConvFCHead,
    MaskRCNNConvUpsampleHead,
    Res5ROIHeads,
    StandardROIHeads,
)

from ..ternary.ternarize import ternarize

__all__ = [
    "TernaryCascadeROIHeads",
    "TernaryFastRCNNConvFCHead",
    "TernaryMaskRCNNConvUpsampleHead",
    "TernaryRPNHead",
    "TernaryRes5ROIHeads",
    "TernaryStandardROIHeads",
]


class _TernaryPart:
    """Ternarizes a part of a detector once it is built; mixed in before Detectron2's class.

    Args:
        ternary_cfg: full config, for :func:`ptq_det.ternarize`. Other arguments are those of
            Detectron2's class.
    """

    full_name: str  # of the part in a whole detector, which name patterns are matched against

    @configurable
    def __init__(self, *args, ternary_cfg, **kwargs):
        super().__init__(*args, **kwargs)
        ternarize(self, ternary_cfg, prefix=f"{self.full_name}.")

    @classmethod
    def from_config(cls, cfg, *args, **kwargs):
        return {**super().from_config(cfg, *args, **kwargs), "ternary_cfg": cfg}


@RPN_HEAD_REGISTRY.register()
class TernaryRPNHead(_TernaryPart, StandardRPNHead):
    """``StandardRPNHead`` with ternary weights."""

    full_name = "proposal_generator.rpn_head"


@ROI_HEADS_REGISTRY.register()
class TernaryStandardROIHeads(_TernaryPart, StandardROIHeads):
    """``StandardROIHeads`` with ternary weights, whatever box and mask head are in it."""

    full_name = "roi_heads"


@ROI_HEADS_REGISTRY.register()
class TernaryCascadeROIHeads(_TernaryPart, CascadeROIHeads):
    """``CascadeROIHeads`` with ternary weights, whatever box and mask head are in it."""

    full_name = "roi_heads"


@ROI_HEADS_REGISTRY.register()
class TernaryRes5ROIHeads(_TernaryPart, Res5ROIHeads):
    """``Res5ROIHeads`` with ternary weights, res5 included."""

    full_name = "roi_heads"


@ROI_BOX_HEAD_REGISTRY.register()
class TernaryFastRCNNConvFCHead(_TernaryPart, FastRCNNConvFCHead):
    """``FastRCNNConvFCHead`` with ternary weights."""

    full_name = "roi_heads.box_head"


@ROI_MASK_HEAD_REGISTRY.register()
class TernaryMaskRCNNConvUpsampleHead(_TernaryPart, MaskRCNNConvUpsampleHead):
    """``MaskRCNNConvUpsampleHead`` with ternary weights."""

    full_name = "roi_heads.mask_head"
