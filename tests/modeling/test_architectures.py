"""The table "What is supported" of the README, on narrow networks of the model zoo's recipes."""

import re

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage

from ptq_det import add_ternary_config, load_packed, pack_model, ternarize
from ptq_det.errors import EngineError
from ptq_det.inference import build_packed, calibrate
from ptq_det.kernels import why_no_kernels
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing.packed_model import PackedModel
from tests.conftest import REPO

BOTH = ("int8", "sparse")
# zoo's recipe, the row of the table that it stands for, the engines on integers that run it
RECIPES = [
    ("COCO-Detection/faster_rcnn_R_50_FPN_1x", "Faster, Mask R-CNN with ResNet and FPN", BOTH),
    ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x",
     "Faster, Mask R-CNN with ResNet and FPN", BOTH),
    ("COCO-Detection/retinanet_R_50_FPN_1x", "RetinaNet with ResNet and FPN", BOTH),
    ("Misc/cascade_mask_rcnn_R_50_FPN_1x", "Cascade, Keypoint R-CNN with FPN", ("sparse",)),
    ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x", "Cascade, Keypoint R-CNN with FPN", ("sparse",)),
    ("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x", "R-CNN with C4 or DC5", ()),
    ("COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x", "R-CNN with C4 or DC5", ()),
    ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x", "Panoptic and semantic FPN", ()),
    ("Misc/semantic_R_50_FPN_1x", "Panoptic and semantic FPN", ()),
    ("COCO-Detection/rpn_R_50_FPN_1x", "RPN alone", ()),
    ("mobilenet_v2", "MobileNetV2 with FPN, as a backbone of ours", ()),
]  # fmt: skip
PICTURE = {"image": torch.randint(0, 256, (3, 96, 96)), "height": 96, "width": 96}


def narrow(name):
    if name == "mobilenet_v2":
        cfg = get_cfg()
        add_ternary_config(cfg)
        cfg.merge_from_file(str(REPO / "configs/mask_rcnn_mobilenet_v2_ptq.yaml"))
    else:
        cfg = model_zoo.get_config(f"{name}.yaml")
        add_ternary_config(cfg)
    cfg.merge_from_list([
        "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "",
        "MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16,
        "MODEL.RESNETS.WIDTH_PER_GROUP", 8, "MODEL.FPN.OUT_CHANNELS", 32,
        "MODEL.ROI_BOX_HEAD.FC_DIM", 16, "MODEL.ROI_MASK_HEAD.CONV_DIM", 32,
        "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", (16, 16), "MODEL.SEM_SEG_HEAD.CONVS_DIM", 32,
        "MODEL.RETINANET.NUM_CONVS", 1, "MODEL.RPN.POST_NMS_TOPK_TEST", 20,
        "MODEL.RPN.PRE_NMS_TOPK_TEST", 50,
    ])  # fmt: skip
    return cfg


def sample() -> dict:
    """The picture with all that any of the recipes learns from."""
    instances = Instances((96, 96))
    instances.gt_boxes = Boxes(torch.tensor([[10.0, 12.0, 60.0, 70.0]]))
    instances.gt_classes = torch.tensor([0])
    mask = torch.zeros(1, 96, 96, dtype=torch.bool)
    mask[0, 12:70, 10:60] = True
    instances.gt_masks = BitMasks(mask)
    instances.gt_keypoints = Keypoints(torch.rand(1, 17, 3) * 30 + 20)
    return {**PICTURE, "instances": instances, "sem_seg": mask[0].long()}


@pytest.mark.parametrize("name", [name for name, _, _ in RECIPES])
def test_a_step_of_training_reaches_the_latent_weights(name):
    cfg = narrow(name)
    model = build_float_model(cfg).train()
    converted = ternarize(model, cfg).converted
    with EventStorage():
        losses = model([sample()])
    sum(losses.values()).backward()
    reached = [n for n in converted if model.get_submodule(n).weight.grad is not None]
    assert len(reached) > 0.7 * len(converted)  # levels without a box are not pooled from


def flat(outputs) -> torch.Tensor:
    """All numbers of what a backbone gives."""
    return torch.cat([x.flatten() for x in outputs.values()])


@pytest.mark.parametrize(("name", "row", "engines"), RECIPES, ids=lambda x: str(x)[:48])
def test_packs_loads_and_runs(name, row, engines, tmp_path):
    cfg = narrow(name)
    model = build_float_model(cfg)
    assert ternarize(model, cfg).weights > 10_000
    path = tmp_path / "m.safetensors"
    pack_model(model.eval(), cfg, path)
    loaded = load_packed(path, "cpu")
    x = (torch.randint(0, 256, (1, 3, 96, 96)).float() - loaded.pixel_mean) / loaded.pixel_std
    with torch.no_grad():
        expected, found = flat(model.backbone(x)), flat(loaded.backbone(x))
    assert float((expected - found).norm() / expected.norm()) < 0.02
    with torch.no_grad(), EventStorage():
        assert len(loaded([PICTURE])) == 1
    packed = PackedModel.read(path)
    packed.ranges = calibrate(packed.build("cpu"), [[PICTURE]])
    for engine in BOTH if why_no_kernels() is None else BOTH[:1]:
        if engine in engines:
            assert len(build_packed(packed, "cpu", engine)([PICTURE])) == 1
        else:
            with pytest.raises(EngineError, match=f"the engine {engine} cannot run"):
                build_packed(packed, "cpu", engine)


def test_the_table_of_the_readme_says_so():
    text = (REPO / "README.md").read_text().split("## What is supported")[1].split("\n## ")[0]
    rows = {}
    for line in text.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows[re.sub(r"\[|\]\(.*?\)", "", cells[0])] = cells[1:]
    classifiers = "torchvision's ResNet-18, ResNet-50, MobileNetV2"
    assert rows.pop(classifiers) == [
        "no",
        "yes",
        "no",
        "no",
    ]  # tests/commands/test_classification.py
    assert set(rows) == {"architecture", "---", *(row for _, row, _ in RECIPES)}
    for _, row, engines in RECIPES:
        runs = ["yes" if engine in engines else "no" for engine in BOTH]
        assert rows[row] == ["yes", "yes", *runs], row
