import json
import logging

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes

from ptq_det import load_packed, pack_model, ternarize
from ptq_det.errors import EngineError, InputError
from ptq_det.inference import calibrate, calibrate_packed
from ptq_det.inference.int8.backbone import Int8FPN
from ptq_det.inference.ranges import Quantization
from ptq_det.packing import PackedFileError
from ptq_det.packing.architecture import Architecture
from ptq_det.packing.container import Container
from ptq_det.packing.packed_model import PackedModel
from ptq_det.packing.skeleton import build_skeleton
from tests.packing.conftest import _randomize_norms

PICTURE = {"image": torch.randint(0, 256, (3, 96, 80)), "height": 96, "width": 80}


def packed_file(cfg, path):
    model = build_model(cfg)
    _randomize_norms(model)
    ternarize(model, cfg)
    pack_model(model.eval(), cfg, path)
    packed = PackedModel.read(path)
    packed.ranges = calibrate(packed.build("cpu"), [[PICTURE]])
    packed.write(path)
    return str(path)


@pytest.fixture
def file(cfg, tmp_path):
    return packed_file(cfg, tmp_path / "m.safetensors")


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


@pytest.fixture
def said():
    """What is logged."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("ptq_det")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield messages
    logger.removeHandler(handler)
    logger.setLevel(level)


def test_one_line_says_what_runs(file, said):
    load_packed(file, "cpu", engine="int8")
    assert [message[:23] for message in said] == ["Engine: int8, by oneDNN"]
    said.clear()
    load_packed(file, "cpu", engine="float")
    assert said == ["Engine: float"]


def test_without_a_name_float_runs_and_the_log_says_why(file, said, monkeypatch):
    load_packed(file, "cpu")
    assert said == ["Engine: float, as none was named; int8 may be named"]
    said.clear()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    model = load_packed(file, "cpu")
    assert said == ["Engine: float, as none was named; int8 cannot: this CPU has no AVX2"]
    assert model([PICTURE])[0]["instances"].image_size == (96, 80)


def test_an_engine_that_is_named_runs_or_says_why_it_cannot(file, said, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    with pytest.raises(EngineError, match=r"int8 cannot run .*m\.safetensors: this CPU"):
        load_packed(file, engine="int8")
    with pytest.raises(EngineError, match="it runs on a CPU, not on cuda"):
        load_packed(file, "cuda", engine="int8")
    assert not said


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

    monkeypatch.setattr("ptq_det.inference.int8.engine.build_skeleton", with_another)
    with pytest.raises(EngineError, match="mask_fcn1 has another end than a ReLU"):
        load_packed(file, "cpu", engine="int8")


def test_a_file_without_ranges_is_refused(file, tmp_path):
    packed = PackedModel.read(file)
    packed.ranges = {}
    packed.write(tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match=r"not calibrated.*--calibrate"):
        load_packed(tmp_path / "bare.safetensors", engine="int8")
    with pytest.raises(InputError, match="there are float, int8"):
        load_packed(file, engine="tpu")


def test_ranges_are_held_by_the_file(file):
    packed = PackedModel.read(file)
    assert "backbone.bottom_up.res3.0.shortcut:output" in packed.ranges
    low, high = packed.ranges["backbone.bottom_up.res3.0.conv2"]
    assert low == 0 < high
    assert packed.ranges["backbone.bottom_up.stem.conv1"][0] < 0
    for wrong in ({"a": [1]}, {"a": [2, 1]}, {"a": "xy"}, {"a": [0, float("nan")]}, [1]):
        content = Container.read(file)
        content.metadata["ranges"] = json.dumps(wrong)
        content.write(file)
        with pytest.raises(PackedFileError, match="ranges"):
            PackedModel.read(file)


def test_calibration_on_a_data_set(file):
    packed = PackedModel.read(file)
    packed.ranges = {}
    calibrate_packed(packed, "few_val")
    assert packed.ranges["backbone.fpn_output2"][0] < 0 < packed.ranges["backbone.fpn_output2"][1]
    assert "roi_heads.mask_head.predictor" in packed.ranges  # untrained, it detects nothing
    packed.architecture = Architecture("torchvision", "resnet18", 10)
    with pytest.raises(InputError, match="only detectors"):
        calibrate_packed(packed, "few_val")
