import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ptq_det.commands.benchmarks import benchmark_difference
from ptq_det.commands.benchmarks.difference import ClassMatches, average_precision, match_detections
from ptq_det.errors import InputError


def _class(picture, matched, objects, ignored=None):
    matched = np.array([matched], dtype=bool)
    ignored = np.zeros_like(matched) if ignored is None else np.array([ignored], dtype=bool)
    return ClassMatches(np.array(picture), matched, ignored, np.array(objects))


def _noisy(annotations, seed, noise):
    """Detections near the objects, some of another class, and some that find nothing."""
    rng = np.random.default_rng(seed)
    predictions = []
    for annotation in annotations:
        x, y, w, h = np.array(annotation["bbox"]) + rng.normal(0, noise, 4)
        box = [float(x), float(y), float(max(w, 1)), float(max(h, 1))]
        category = annotation["category_id"] if rng.random() < 0.8 else 1
        for score in rng.random(2):
            predictions.append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": category,
                    "bbox": box,
                    "segmentation": _rectangle(box),
                    "score": float(score),
                }
            )
            box = [box[0] + 3, box[1], box[2], box[3]]
    return predictions


def _rectangle(box):
    """A mask that fills the box, as Detectron2's evaluator writes it."""
    x, y, w, h = box
    (encoded,) = mask.frPyObjects([[x, y, x + w, y, x + w, y + h, x, y + h]], 128, 128)
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


@pytest.fixture
def annotations(pictures):
    return json.loads((pictures / "annotations/val.json").read_text())["annotations"]


@pytest.fixture
def written(tmp_path, annotations):
    """Predictions of two models in files, the first the better."""
    paths = []
    for name, noise in (("fine", 0.5), ("coarse", 4.0)):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(_noisy(annotations, 0, noise)))
    return [str(path) for path in paths]


def test_average_precision_by_hand():
    # Picture 0: found; picture 1: a miss that scores above a hit.
    found = _class([0, 1, 1], [True, False, True], [1, 1])
    # Precision 1 up to recall 0.5 (51 of 101 recalls), then 2/3.
    assert average_precision([found], np.array([1, 1])) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert average_precision([found], np.array([1, 0])) == pytest.approx(1)
    assert average_precision([found], np.array([0, 1])) == pytest.approx(1 / 2)
    # Twice the first: hits at recalls 2/3 and, with precision 3/4, 1; 67 recalls are up to 2/3.
    assert average_precision([found], np.array([2, 1])) == pytest.approx((67 + 34 * 3 / 4) / 101)


def test_what_is_on_a_crowd_counts_for_nothing():
    found = _class([0, 0, 1], [False, True, True], [1, 1], ignored=[True, False, False])
    assert average_precision([found], np.array([1, 1])) == pytest.approx(1)


def test_classes_without_objects_are_left_out():
    present, absent = _class([0], [True], [1, 0]), _class([1], [False], [0, 1])
    assert average_precision([present, absent], np.array([1, 1])) == pytest.approx(1 / 2)
    assert average_precision([present, absent], np.array([1, 0])) == pytest.approx(1)
    assert np.isnan(average_precision([present, absent], np.array([0, 0])))


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_ap_of_the_data_set_itself_is_that_of_pycocotools(pictures, annotations, task):
    truth = COCO(str(pictures / "annotations/val.json"))
    predictions = _noisy(annotations, 1, 2.0)
    ours = average_precision(
        match_detections(truth, predictions, task), np.ones(len(truth.getImgIds()), dtype=int)
    )
    for prediction in predictions if task == "segm" else []:
        del prediction["bbox"]
    evaluation = COCOeval(truth, truth.loadRes(predictions), task)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert 0.05 < ours < 0.95
    assert ours == pytest.approx(evaluation.stats[0], abs=1e-9)


def test_a_better_model_is_better_in_most_draws(written, capsys):
    fine, coarse = written
    result = benchmark_difference("few_val", [fine], [coarse], samples=100)
    for task in ("bbox", "segm"):
        (pair,) = result[task]
        low, high = pair["interval"]
        assert pair["difference"] == pytest.approx(pair["ap"] - pair["baseline"])
        assert 0 < low < pair["difference"] < high < 100
    assert "drawn 100 times" in capsys.readouterr().out


def test_pictures_are_drawn_for_both_sides_at_once(written):
    fine, _ = written
    (pair,) = benchmark_difference("few_val", [fine], [fine], samples=20)["bbox"]
    assert pair["difference"] == 0 and pair["interval"] == [0, 0]


def test_several_pairs_have_a_mean(written):
    fine, coarse = written
    rows = benchmark_difference("few_val", [fine, fine], [coarse, fine], samples=20)["bbox"]
    assert len(rows) == 3
    assert rows[2]["difference"] == pytest.approx(rows[0]["difference"] / 2)


def test_models_without_masks_have_box_ap_alone(written, tmp_path):
    predictions = json.loads(Path(written[0]).read_text())
    for prediction in predictions:
        del prediction["segmentation"]
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(predictions))
    assert set(benchmark_difference("few_val", [str(path)], [str(path)], 5)) == {"bbox"}


def test_what_cannot_be_compared_is_refused(written, tmp_path):
    fine, coarse = written
    with pytest.raises(InputError, match="as many of both"):
        benchmark_difference("few_val", [fine, fine], [coarse], 5)
    with pytest.raises(InputError, match="which the data set does not have"):
        strange = json.loads(Path(fine).read_text())
        strange[0]["image_id"] = 10**6
        path = tmp_path / "strange.json"
        path.write_text(json.dumps(strange))
        benchmark_difference("few_val", [str(path)], [coarse], 5)
    with pytest.raises(InputError, match="cannot be read"):
        benchmark_difference("few_val", [str(tmp_path / "none.json")], [coarse], 5)
    path = tmp_path / "empty.json"
    path.write_text("[]")
    with pytest.raises(InputError, match="holds no predictions"):
        benchmark_difference("few_val", [str(path)], [coarse], 5)
    with pytest.raises(InputError, match="no annotations in COCO format"):
        if "without_json" not in DatasetCatalog:
            DatasetCatalog.register("without_json", list)
        benchmark_difference("without_json", [fine], [coarse], 5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "it is no JSON"),
        ('{"images": [], "annotations": [], "categories": []}', "it has no pictures"),
        ('{"images": [{}], "annotations": [], "categories": []}', r"no file of annotations.*'id'"),
    ],
)
def test_annotations_that_cannot_be_read(text, message, written, tmp_path):
    (tmp_path / "a.json").write_text(text)
    register_coco_instances("broken_difference", {}, str(tmp_path / "a.json"), str(tmp_path))
    try:
        with pytest.raises(InputError, match=rf"a\.json.*{message}"):
            benchmark_difference("broken_difference", [written[0]], [written[1]], 10)
    finally:
        DatasetCatalog.remove("broken_difference")
        MetadataCatalog.remove("broken_difference")


@pytest.mark.parametrize("change", [{"bbox": [1, 2]}, {"score": "a"}, {"bbox": [1, 2, 3, None]}])
def test_predictions_of_other_kinds_of_values(change, written, annotations, tmp_path):
    predictions = _noisy(annotations, 0, 1.0)
    predictions[-1] |= change
    (tmp_path / "p.json").write_text(json.dumps(predictions))
    with pytest.raises(InputError, match="holds no predictions in COCO's format"):
        benchmark_difference("few_val", [str(tmp_path / "p.json")], [written[1]], 10)
