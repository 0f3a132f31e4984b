import copy
import pickle

import pytest
import torch
from detectron2.structures import Boxes

from ptq_det import load_packed
from ptq_det.errors import EngineError
from ptq_det.inference.int8.backbone import Int8FPN
from ptq_det.inference.ranges import Quantization
from ptq_det.packing.packed_model import PackedModel
from ptq_det.packing.skeleton import build_skeleton
from tests.inference.conftest import PICTURE, packed_file


def features(model):
    images = model.preprocess_image([PICTURE]).tensor
    return model.backbone(images)


def retinanet(cfg, repo):
    cfg.merge_from_file(str(repo / "configs/quick_schedules/shapes_retinanet_ptq.yaml"))
    cfg.MODEL.WEIGHTS, cfg.MODEL.RETINANET.NORM = "", ""


@pytest.mark.parametrize("kind", ["mask", "box", "basic blocks", "retinanet"])
def test_features_and_heads_are_those_of_the_float_model(kind, cfg, tmp_path, repo):
    if kind == "box":
        cfg.MODEL.MASK_ON = False
        cfg.MODEL.RPN.CONV_DIMS = [-1, 8]
    if kind == "basic blocks":
        cfg.MODEL.RESNETS.DEPTH = 18
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64  # as Detectron2 asks for
    if kind == "retinanet":
        retinanet(cfg, repo)
    file = packed_file(cfg, tmp_path / "m.safetensors")
    exact, integer = load_packed(file, "cpu"), load_packed(file, "cpu", engine="int8")
    assert isinstance(integer.backbone, Int8FPN)
    if kind == "retinanet":
        name, heads = "head.cls_subnet.0", (exact.head, integer.head)
    else:
        name = "proposal_generator.rpn_head.conv" + (".conv0" if kind == "box" else "")
        heads = (exact.proposal_generator.rpn_head, integer.proposal_generator.rpn_head)
    ranges = Quantization.of(*PackedModel.read(file).ranges[name])
    expected, found = features(exact), features(integer)
    assert list(found) == list(expected)
    for level, codes in found.items():
        error = (ranges.dequantize(codes) - expected[level]).norm() / expected[level].norm()
        assert codes.dtype == torch.uint8 and float(error) < 0.15, level
    maps = [ranges.dequantize(x) for x in found.values()]  # the heads alone, on the same maps
    for exacts, founds in zip(heads[0](maps), heads[1](list(found.values())), strict=True):
        assert all(x.dtype == torch.float32 for x in founds)
        one, other = (torch.cat([x.flatten() for x in each]) for each in (exacts, founds))
        assert float((one - other).norm() / one.norm()) < 0.1
    (instances,) = integer([PICTURE])
    assert instances["instances"].image_size == (96, 80)


def test_roi_heads_are_those_of_the_float_model(file):
    exact, integer = load_packed(file, "cpu"), load_packed(file, "cpu", engine="int8")
    ranges = PackedModel.read(file).ranges
    source = Quantization.of(*ranges["proposal_generator.rpn_head.conv"])
    codes = features(integer)
    boxes = [Boxes(torch.tensor([[3.0, 4.0, 40.0, 60.0], [0.0, 0.0, 80.0, 96.0]]))]
    outputs = []
    exacts = {name: source.dequantize(x) for name, x in codes.items()}
    for model, maps in ((exact, exacts), (integer, codes)):
        heads = model.roi_heads
        maps = [maps[name] for name in heads.box_in_features]
        hidden = heads.box_head(heads.box_pooler(maps, boxes))
        masks = heads.mask_head.layers(heads.mask_pooler(maps, boxes))
        outputs.append([*heads.box_predictor(hidden), masks])
    for one, other in zip(*outputs, strict=True):
        assert float((one - other).norm() / one.norm()) < 0.15


def test_the_same_picture_gives_the_same_with_one_thread_or_two(file):
    model = load_packed(file, "cpu", engine="int8")
    results = []
    for threads in (1, 2, 1):
        torch.set_num_threads(threads)
        results.append(model([PICTURE])[0]["instances"])
    torch.set_num_threads(1)
    for other in results[1:]:
        assert torch.equal(other.pred_boxes.tensor, results[0].pred_boxes.tensor)
        assert torch.equal(other.scores, results[0].scores)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda cfg: setattr(cfg.MODEL.ROI_HEADS, "NAME", "CascadeROIHeads"), "cascaded"),
        (lambda cfg: setattr(cfg.MODEL.FPN, "FUSE_TYPE", "avg"), "does not add"),
        (lambda cfg: setattr(cfg.MODEL.ROI_MASK_HEAD, "NORM", "GN"), "norm"),
    ],
)
def test_what_has_no_integer_form_is_said(change, reason, cfg, tmp_path, said):
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True  # as cascaded heads need it
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 32  # as a group norm needs it
    change(cfg)
    file = packed_file(cfg, tmp_path / "m.safetensors")
    with pytest.raises(EngineError, match=rf"the engine int8 cannot run .*{reason}"):
        load_packed(file, "cpu", engine="int8")
    assert not said


def test_another_activation_is_not_left_out(cfg, tmp_path, said, monkeypatch):
    file = packed_file(cfg, tmp_path / "m.safetensors")
    built = build_skeleton

    def with_another(*args):
        model = built(*args)
        model.roi_heads.mask_head.mask_fcn1.activation = torch.nn.ReLU6()
        return model

    monkeypatch.setattr("ptq_det.packing.packed_model.build_skeleton", with_another)
    with pytest.raises(EngineError, match="mask_fcn1 has another end than a ReLU"):
        load_packed(file, "cpu", engine="int8")


def test_it_predicts_under_inference_mode_too(file):
    model = load_packed(file, "cpu", engine="int8")
    (expected,) = model([PICTURE])
    with torch.inference_mode():
        (found,) = model([PICTURE])
    assert torch.equal(found["instances"].scores, expected["instances"].scores)


def test_a_copy_is_refused_with_what_to_do(file):
    model = load_packed(file, "cpu", engine="int8")
    for make in (copy.deepcopy, pickle.dumps):
        with pytest.raises(EngineError, match="cannot be copied; load_packed makes another"):
            make(model)


def test_a_panoptic_fpn_is_not_taken_for_an_r_cnn(cfg, tmp_path):
    cfg.MODEL.META_ARCHITECTURE = "PanopticFPN"
    cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES, cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = ["p2", "p3"], 32
    with pytest.raises(EngineError, match="it is a PanopticFPN"):
        load_packed(packed_file(cfg, tmp_path / "m.safetensors"), "cpu", engine="int8")
