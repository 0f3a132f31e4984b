"""Kinds of models, as narrow networks of the model zoo's recipes and of Detectron2's projects."""

import sys
from dataclasses import dataclass
from pathlib import Path

from detectron2 import model_zoo
from detectron2.config import CfgNode

from ptq_det import add_ternary_config
from ptq_det.data.shapes import CLASSES
from ptq_det.plugins import base_config, import_plugin

from .pictures import KEYPOINTS, STUFF

__all__ = ["KINDS", "Kind"]

_NARROW = [
    "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.BACKBONE.FREEZE_AT", 0,
    "MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16,
    "MODEL.RESNETS.WIDTH_PER_GROUP", 8, "MODEL.FPN.OUT_CHANNELS", 32,
    "MODEL.ROI_BOX_HEAD.FC_DIM", 16, "MODEL.ROI_BOX_HEAD.CONV_DIM", 32,
    "MODEL.ROI_MASK_HEAD.CONV_DIM", 32, "MODEL.ROI_MASK_HEAD.NUM_CONV", 1,
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", (16, 16),
    "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", KEYPOINTS,
    "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE", 0, "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES", len(STUFF), "MODEL.ROI_HEADS.NUM_CLASSES", len(CLASSES),
    "MODEL.RETINANET.NUM_CLASSES", len(CLASSES), "MODEL.RETINANET.NUM_CONVS", 1,
    "MODEL.RETINANET.SCORE_THRESH_TEST", 0.0,
    "MODEL.RPN.POST_NMS_TOPK_TEST", 20, "MODEL.RPN.PRE_NMS_TOPK_TEST", 50,
    "INPUT.MIN_SIZE_TRAIN", (96,), "INPUT.MIN_SIZE_TEST", 96, "INPUT.MASK_FORMAT", "bitmask",
    "DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 2, "SOLVER.WARMUP_ITERS", 0,
    "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.BASE_LR", 1e-7, "SOLVER.STEPS", (),
    "TERNARY.SPARSITY_OVERRIDES", [], "TERNARY.REQUIRE_TRAINED", False,
    "TERNARY.FREEZE_START", 0.5,  # from the second of two iterations on
]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        name: as the table has it.
        recipe: of the zoo; or a project's, under its folder ``configs``.
        project: folder under Detectron2's ``projects`` and, behind a colon, the module that has
            to be imported.
        changes: of the config, beside those that make it narrow.
        pixels: it learns classes of pixels alone.
        proposals: it takes those of another model.
    """

    name: str
    recipe: str
    project: str = ""
    changes: tuple = ()
    pixels: bool = False
    proposals: bool = False

    def cfg(self, detectron2: Path | None, proposals: Path) -> CfgNode:
        """Its config.

        Raises:
            InputError: its project cannot be imported.
        """
        folder = None
        if self.project:
            project, module = self.project.split(":")
            folder = detectron2 / "projects" / project
            sys.path.insert(0, str(folder))
            import_plugin(module)
        cfg = base_config()
        add_ternary_config(cfg)
        if folder is None:
            cfg.merge_from_file(model_zoo.get_config_file(self.recipe))
        else:
            cfg.merge_from_file(str(folder / "configs" / self.recipe))
        cfg.merge_from_list([*_NARROW, *self.changes])
        if cfg.MODEL.RESNETS.NORM == "FrozenBN":  # which lets random weights grow without end
            cfg.MODEL.RESNETS.NORM = "BN"
        data = "pixels" if self.pixels else "all"
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (f"{data}_train",), (f"{data}_val",)
        if self.proposals:
            cfg.DATASETS.PROPOSAL_FILES_TRAIN = (str(proposals / "train.pkl"),)
            cfg.DATASETS.PROPOSAL_FILES_TEST = (str(proposals / "val.pkl"),)
        cfg.TERNARY.ENABLED = True
        return cfg


_SEGMENTATION = "COCO-InstanceSegmentation/mask_rcnn_R_50_"
KINDS = [
    Kind("Mask R-CNN, FPN", _SEGMENTATION + "FPN_1x.yaml"),
    Kind("Faster R-CNN, FPN", "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"),
    Kind("Mask R-CNN, C4", _SEGMENTATION + "C4_1x.yaml"),
    Kind("Mask R-CNN, DC5", _SEGMENTATION + "DC5_1x.yaml"),
    Kind("Cascade Mask R-CNN", "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml"),
    Kind(
        "Mask R-CNN, GN",
        "Misc/mask_rcnn_R_50_FPN_3x_gn.yaml",
        changes=("MODEL.RESNETS.STEM_OUT_CHANNELS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 32,
                 "MODEL.RESNETS.RES2_OUT_CHANNELS", 32),
    ),
    Kind("Mask R-CNN, deformable", "Misc/mask_rcnn_R_50_FPN_3x_dconv_c3-c5.yaml"),
    Kind("Mask R-CNN, LVIS", "LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"),
    Kind("Mask R-CNN, Cityscapes", "Cityscapes/mask_rcnn_R_50_FPN.yaml"),
    Kind("Keypoint R-CNN", "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml"),
    Kind("RetinaNet", "COCO-Detection/retinanet_R_50_FPN_1x.yaml"),
    Kind("RPN", "COCO-Detection/rpn_R_50_FPN_1x.yaml"),
    Kind("Fast R-CNN", "COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml", proposals=True),
    Kind("Semantic FPN", "Misc/semantic_R_50_FPN_1x.yaml", pixels=True),
    Kind("Panoptic FPN", "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml"),
    Kind(
        "PointRend",
        "InstanceSegmentation/pointrend_rcnn_R_50_FPN_1x_coco.yaml",
        "PointRend:detectron2.projects.point_rend",
        ("MODEL.POINT_HEAD.NUM_CLASSES", len(CLASSES), "MODEL.POINT_HEAD.FC_DIM", 16),
    ),
    Kind(
        "TridentNet",
        "tridentnet_fast_R_50_C4_1x.yaml",
        "TridentNet:tridentnet",
    ),
    Kind(
        "DeepLab",
        "Cityscapes-SemanticSegmentation/deeplab_v3_R_103_os16_mg124_poly_90k_bs16.yaml",
        "DeepLab:detectron2.projects.deeplab",
        ("MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", 32, "INPUT.CROP.ENABLED", False,
         "SOLVER.LR_SCHEDULER_NAME", "WarmupMultiStepLR",
         "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", [8], "MODEL.RESNETS.DEPTH", 50),
        pixels=True,
    ),
    Kind(
        "DensePose",
        "densepose_rcnn_R_50_FPN_s1x.yaml",
        "DensePose:densepose",  # learning from masks, as the pictures have no dense poses
        ("MODEL.ROI_DENSEPOSE_HEAD.CONV_HEAD_DIM", 16,
         "MODEL.ROI_DENSEPOSE_HEAD.NUM_STACKED_CONVS", 2,
         "MODEL.ROI_DENSEPOSE_HEAD.DECODER_CONV_DIMS", 32,
         "MODEL.ROI_DENSEPOSE_HEAD.DECODER_NUM_CLASSES", 32,
         "MODEL.ROI_DENSEPOSE_HEAD.COARSE_SEGM_TRAINED_BY_MASKS", True, "MODEL.MASK_ON", True),
    ),
]  # fmt: skip
"""By the row of the table, the most common first."""
