import copy

import pytest
import torch
from detectron2.structures import Boxes

from ptq_det import load_packed
from ptq_det.errors import EngineError
from ptq_det.inference.calibration import take_any_score
from ptq_det.inference.sparse.backbone import SparseFPN
from ptq_det.kernels import why_no_kernels
from tests.inference.conftest import PICTURE, packed_file

pytestmark = pytest.mark.skipif(why_no_kernels() is not None, reason=str(why_no_kernels()))


def features(model):
    return model.backbone(model.preprocess_image([PICTURE]).tensor)


def close(one, other, most=0.02):
    assert one.shape == other.shape
    assert float((one - other).norm() / one.norm()) < most


def change_to(kind, cfg, repo):
    model = cfg.MODEL
    if kind == "box":
        model.MASK_ON = False
        model.RPN.CONV_DIMS = [-1, 8]
    if kind == "convolutions in the box head":
        model.ROI_BOX_HEAD.NUM_CONV, model.ROI_BOX_HEAD.CONV_DIM = 2, 16
    if kind == "basic blocks":
        model.RESNETS.DEPTH = 18
        model.RESNETS.RES2_OUT_CHANNELS = 64  # as Detectron2 asks for
    if kind == "cascade":
        model.ROI_HEADS.NAME = "CascadeROIHeads"
        model.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    if kind == "keypoints":
        model.KEYPOINT_ON = True
        model.ROI_KEYPOINT_HEAD.CONV_DIMS = [16, 16]
        model.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = 4
        model.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE = 1
    if kind == "not aligned":
        model.ROI_BOX_HEAD.POOLER_TYPE = model.ROI_MASK_HEAD.POOLER_TYPE = "ROIAlign"
        model.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO = 2
    if kind.startswith("retinanet"):
        cfg.merge_from_file(str(repo / "configs/quick_schedules/shapes_retinanet_ptq.yaml"))
        model.WEIGHTS, model.RETINANET.NORM = "", ""


KINDS = [
    "mask",
    "box",
    "convolutions in the box head",
    "basic blocks",
    "cascade",
    "keypoints",
    "not aligned",
    "retinanet",
]


@pytest.mark.parametrize("kind", KINDS)
def test_features_and_heads_are_those_of_the_float_model(kind, cfg, tmp_path, repo):
    change_to(kind, cfg, repo)
    file = packed_file(cfg, tmp_path / "m.safetensors")
    exact, sparse = load_packed(file, "cpu"), load_packed(file, "cpu", engine="sparse")
    assert isinstance(sparse.backbone, SparseFPN)
    expected, found = features(exact), features(sparse)
    assert list(found) == list(expected)
    step = sparse.backbone.step
    maps = {name: torch.from_numpy(x.codes()) * step for name, x in found.items()}
    for name, each in maps.items():
        close(expected[name], each, 0.04)
    # The heads alone, on the same maps.
    if kind == "retinanet":
        heads = exact.head(list(maps.values())), sparse.head(list(found.values()))
    else:
        heads = tuple(
            model.proposal_generator.rpn_head(list(x.values()))
            for model, x in ((exact, maps), (sparse, found))
        )
    for exacts, founds in zip(*heads, strict=True):
        close(*(torch.cat([x.flatten() for x in each]) for each in (exacts, founds)))
    if kind != "retinanet":
        boxes = [Boxes(torch.tensor([[3.0, 4.0, 40.0, 60.0], [0.0, 0.0, 80.0, 96.0]]))]
        for one, other in zip(roi(exact, maps, boxes), roi(sparse, found, boxes), strict=True):
            close(one, other, 0.04)
    take_any_score(sparse, 5)
    (instances,) = sparse([PICTURE])
    assert instances["instances"].image_size == (96, 80)
    assert len(instances["instances"])


def roi(model, maps, boxes):
    heads = model.roi_heads
    maps = [maps[name] for name in heads.box_in_features]
    several = isinstance(heads.box_head, torch.nn.ModuleList)
    box_heads = heads.box_head if several else [heads.box_head]
    predictors = heads.box_predictor if several else [heads.box_predictor]
    found = []
    for head, predictor in zip(box_heads, predictors, strict=True):
        found += predictor(head(heads.box_pooler(maps, boxes)))
    if heads.mask_on:
        found.append(heads.mask_head.layers(heads.mask_pooler(maps, boxes)))
    if heads.keypoint_on:
        found.append(heads.keypoint_head.layers(heads.keypoint_pooler(maps, boxes)))
    return found


def test_the_same_with_one_thread_or_two_and_after_other_sizes(file):
    model = load_packed(file, "cpu", engine="sparse")
    take_any_score(model)
    other = {"image": torch.randint(0, 256, (3, 130, 61)), "height": 130, "width": 61}
    results = []
    for threads, before in ((1, PICTURE), (2, other), (1, PICTURE)):
        torch.set_num_threads(threads)
        model([before])
        results.append(model([PICTURE])[0]["instances"])
    torch.set_num_threads(1)
    for result in results[1:]:
        assert torch.equal(result.pred_boxes.tensor, results[0].pred_boxes.tensor)
        assert torch.equal(result.pred_masks, results[0].pred_masks)


def test_memory_is_held_for_a_size_that_comes_again_and_does_not_grow(file):
    model = load_packed(file, "cpu", engine="sparse")
    held = []
    for height, width in [(96, 80), (96, 80), (96, 80), (130, 61), (64, 200), (64, 200), (96, 80)]:
        picture = torch.randint(0, 256, (3, height, width))
        model([{"image": picture, "height": height, "width": width}])
        held.append(model.backbone.lateral[0]._maps.bytes)
    assert [each > 0 for each in held] == [False, True, True, False, False, True, False]
    assert held[2] < 1.1 * held[1]  # it depends on boxes a little


def test_several_pictures_in_a_call(file):
    model = load_packed(file, "cpu", engine="sparse")
    take_any_score(model)
    alone = model([PICTURE])[0]["instances"]
    for result in model([PICTURE, PICTURE]):
        assert torch.equal(result["instances"].pred_boxes.tensor, alone.pred_boxes.tensor)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda cfg: setattr(cfg.MODEL.FPN, "FUSE_TYPE", "avg"), "does not add"),
        (lambda cfg: setattr(cfg.MODEL.ROI_MASK_HEAD, "NORM", "GN"), "norm"),
        (lambda cfg: setattr(cfg.MODEL.RESNETS, "NUM_GROUPS", 2), "groups"),
        (lambda cfg: setattr(cfg.MODEL.ROI_BOX_HEAD, "POOLER_TYPE", "ROIPool"), "ROIAlign"),
    ],
)
def test_what_has_no_form_is_said(change, reason, cfg, tmp_path):
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 32  # as a group norm needs it
    change(cfg)
    file = packed_file(cfg, tmp_path / "m.safetensors")
    with pytest.raises(EngineError, match=rf"the engine sparse cannot run .*{reason}"):
        load_packed(file, "cpu", engine="sparse")


def test_it_predicts_under_inference_mode_too(file):
    model = load_packed(file, "cpu", engine="sparse")
    (expected,) = model([PICTURE])
    with torch.inference_mode():
        (found,) = model([PICTURE])
    assert torch.equal(found["instances"].scores, expected["instances"].scores)


def test_a_copy_is_refused_with_what_to_do(file):
    model = load_packed(file, "cpu", engine="sparse")
    with pytest.raises(EngineError, match="cannot be copied; load_packed makes another"):
        copy.deepcopy(model)
