import os
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from PIL import Image

from ptq_det.commands.draw import predictor_of
from ptq_det.errors import InputError
from ptq_det.export.decode import fill, metadata_of
from ptq_det.export.exporting import export_onnx
from ptq_det.export.model import build_graph
from ptq_det.export.predictor import OnnxPredictor, Prediction, decoded, graph_beside
from ptq_det.packing.packed_model import PackedModel


@pytest.fixture(scope="module")
def opened(exported):
    """A model that gives detections of any score, and Detectron2's predictor that does too."""
    from ptq_det.export import exporting

    path = exported / "open.onnx"
    build = exporting.build_graph
    exporting.build_graph = lambda *args, **rest: build(*args, **{**rest, "threshold": 0.0})
    try:
        export_onnx(exported / "m.safetensors", path)
    finally:
        exporting.build_graph = build
    predictor, _ = predictor_of(str(exported / "m.safetensors"))
    predictor.model.roi_heads.box_predictor.test_score_thresh = 0.0
    return OnnxPredictor(path, threads=1), predictor


@pytest.mark.parametrize("size", [(96, 80), (300, 41), (41, 300), (64, 64), (1, 1), (3000, 40)])
def test_pictures_of_any_size_give_what_detectron2_finds(size, opened):
    ours, theirs = opened
    rng = np.random.default_rng(1)
    grown = Image.fromarray(rng.integers(0, 256, (7, 5, 3), np.uint8)).resize(size[::-1])
    found = ours(grown)
    wanted = theirs(np.asarray(grown)[:, :, ::-1])["instances"]
    assert len(found.scores) == len(wanted)
    boxes = wanted.pred_boxes.tensor.numpy()
    near = np.abs(boxes[:, None] - found.boxes[None]).max(-1, initial=0) < 0.02
    near &= np.abs(wanted.scores.numpy()[:, None] - found.scores[None]) < 1e-3
    assert len(boxes) == 0 or near.any(1).mean() > 0.95
    if len(boxes):
        first = int(near[0].argmax())
        assert (found.mask(first) == wanted.pred_masks[0].numpy()).mean() > 0.99


def test_a_picture_in_which_nothing_is_found(float_model):
    found = OnnxPredictor(float_model)(Image.new("RGB", (80, 60)))
    kept = found.above(1.1)
    assert len(kept.scores) == 0 and kept.masks.shape[0] == 0
    assert list(kept.to_coco(1)) == []


@pytest.mark.parametrize("int8", [False, True])
def test_no_detection_at_all_runs_through_every_head(int8, exported, tmp_path):
    packed = PackedModel.read(exported / "m.safetensors")
    graph = build_graph(packed, int8, threshold=2.0).SerializeToString()
    model = fill(graph, metadata_of(graph), exported / "m.safetensors")
    (tmp_path / "closed.onnx").write_bytes(model)
    found = OnnxPredictor(tmp_path / "closed.onnx")(Image.new("RGB", (80, 60), (9, 99, 200)))
    assert found.boxes.shape == (0, 4) and found.masks.shape == (0, 28, 28)


def test_results_are_detectron2_s(opened):
    ours, theirs = opened
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (70, 60, 3), np.uint8))
    found = ours(picture)
    wanted = theirs(np.asarray(picture)[:, :, ::-1])["instances"]
    wanted = instances_to_coco_json(wanted, 3)
    same = 0
    for entry in found.to_coco(3, list(range(6))):
        assert entry["image_id"] == 3 and entry.keys() == wanted[0].keys()
        same += any(
            other["category_id"] == entry["category_id"]
            and np.allclose(entry["bbox"], other["bbox"], atol=0.02)
            and entry["score"] == pytest.approx(other["score"], abs=1e-3)
            for other in wanted
        )
    assert same > 0.9 * len(found.scores) > 10


def test_exif_turns_a_picture(float_model):
    predictor = OnnxPredictor(float_model)
    picture = Image.new("RGB", (80, 40))
    exif = picture.getexif()
    exif[0x0112] = 6
    path = os.path.join(os.path.dirname(float_model), "turned.jpg")
    picture.save(path, exif=exif)
    with Image.open(path) as turned:
        found = predictor(turned)
    assert (found.height, found.width) == (80, 40)


def test_gray_and_transparent_pictures(float_model):
    predictor = OnnxPredictor(float_model)
    for mode in ("L", "RGBA", "P", "1", "CMYK"):
        assert predictor(Image.new(mode, (50, 40))).width == 50


def test_a_fixed_size_takes_any_picture(file, tmp_path):
    export_onnx(file, tmp_path / "m.onnx", size=(96, 128))
    predictor = OnnxPredictor(tmp_path / "m.onnx")
    for size in ((300, 10), (10, 300), (128, 96), (1, 1)):
        found = predictor(Image.new("RGB", size, (200, 30, 90)))
        assert (found.boxes <= np.array([*size, *size])).all()


def test_another_size(float_model):
    predictor = OnnxPredictor(float_model, min_size=128)
    assert predictor._scaled(300, 200) == (192, 128)
    assert predictor._scaled(4000, 100)[0] <= 1333


def test_files_that_are_no_exported_models(tmp_path, file):
    with pytest.raises(FileNotFoundError):
        OnnxPredictor(tmp_path / "none.onnx")
    with pytest.raises(InputError, match="no ONNX model that runs"):
        OnnxPredictor(file)
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(InputError):
        OnnxPredictor(tmp_path / "m.onnx")


def test_a_packed_file_is_decoded_once(file, graph, tmp_path, monkeypatch):
    assert graph_beside(file) == graph
    cache = tmp_path / "cache"
    first = decoded(file, cache=cache)
    monkeypatch.setattr("ptq_det.export.predictor.decode", None)
    assert decoded(file, cache=cache) == first and first.parent == cache
    assert OnnxPredictor(first)(Image.new("RGB", (50, 40))).height == 40
    assert decoded(first) == first
    graph.unlink()
    with pytest.raises(FileNotFoundError, match="--weightless"):
        decoded(file, cache=cache)
    with pytest.raises(FileNotFoundError):
        decoded(tmp_path / "none")


def test_a_cached_model_that_was_cut_or_changed_is_decoded_again(file, graph, tmp_path):
    first = decoded(file, cache=tmp_path / "cache")
    whole = first.read_bytes()
    for content in (whole[:1000], b"", whole + b"x"):
        first.write_bytes(content)
        assert decoded(file, cache=tmp_path / "cache").read_bytes() == whole


def test_a_cache_that_cannot_be_made_is_told(file, graph, tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(InputError, match="set XDG_CACHE_HOME"):
        decoded(file, cache=tmp_path / "taken" / "cache")


def test_pictures_of_more_than_8_bits_are_refused(float_model):
    for mode in ("I;16", "I", "F"):
        with pytest.raises(ValueError, match="save it with 8"):
            OnnxPredictor(float_model)(Image.new(mode, (50, 40)))


def test_the_users_cache_folder_is_the_default(file, graph, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert decoded(file, graph).parent == tmp_path / "home/ptq_det"


def test_detections_above_a_score():
    boxes = np.arange(8, dtype=np.float32).reshape(2, 4)
    found = Prediction(9, 9, boxes, np.array([0.9, 0.2]), np.array([0, 1]), None, None)
    assert found.above(0.5).boxes.tolist() == [[0, 1, 2, 3]]


def test_class_names_come_from_the_file(float_model):
    predictor = OnnxPredictor(float_model)
    assert predictor.classes == list(MetadataCatalog.get("few_train").thing_classes)
    assert predictor.name_of(0) == predictor.classes[0] and predictor.name_of(99) == "99"
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("min_size", "x"),
        ("min_size", "-5"),
        ("size", "[1]"),
        ("size", "7"),
        ("classes", "7"),
        ("classes", "{"),
        ("input_format", None),
    ],
)
def test_forged_metadata_are_refused(key, value, float_model, tmp_path):
    model = onnx.load(str(float_model))
    entry = next(x for x in model.metadata_props if x.key == key)
    if value is None:
        model.metadata_props.remove(entry)
    else:
        entry.value = value
    onnx.save(model, str(tmp_path / "m.onnx"))
    with pytest.raises(InputError, match="metadata make no sense"):
        OnnxPredictor(tmp_path / "m.onnx")


def test_a_model_that_fails_as_it_runs_is_told(float_model, monkeypatch):
    predictor = OnnxPredictor(float_model)
    monkeypatch.setattr(predictor, "_session", SimpleNamespace(run=lambda *a: 1 / 0))
    with pytest.raises(InputError, match="it does not run"):
        predictor(Image.new("RGB", (50, 40)))
