import json

import numpy as np
import pytest
from PIL import Image

from ptq_det.errors import InputError
from ptq_det.export.pictures import (
    average_precision,
    described,
    draw,
    find_pictures,
    read_annotations,
    results_of,
)
from ptq_det.export.predictor import Prediction


def prediction(keypoints=None):
    return Prediction(
        60,
        80,
        np.array([[10, 10, 50, 40], [0, 0, 5, 5]], np.float32),
        np.array([0.9, 0.6], np.float32),
        np.array([0, 14]),
        np.ones((2, 28, 28), np.float32),
        keypoints,
    )


def test_pictures_are_found(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    names = [path.name for path in find_pictures([str(tmp_path), str(tmp_path / "notes.txt")])]
    assert names == ["a.png", "b.JPG", "notes.txt"]
    with pytest.raises(FileNotFoundError, match="no such picture or folder"):
        find_pictures([str(tmp_path / "none")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures there"):
        find_pictures([str(tmp_path / "empty")])


def test_what_is_found_is_drawn():
    picture = Image.new("RGB", (80, 60))
    drawn = np.asarray(draw(picture, prediction(np.ones((2, 3, 3), np.float32)), str))
    assert drawn[25, 30].any() and not drawn[55, 70].any()
    assert not np.asarray(picture).any()


def test_results_by_names():
    first, second = described(prediction(), "a.png", "class {}".format)
    assert (first["file_name"], first["category"]) == ("a.png", "class 0")
    assert second["category_id"] == 14 and "image_id" not in second
    assert first["bbox"] == [10, 10, 40, 30]
    json.dumps([first, second])


def test_average_precision_of_perfect_results(pictures):
    path = pictures / "annotations/val.json"
    content = json.loads(path.read_text())
    results = [
        {key: x[key] for key in ("image_id", "category_id", "bbox", "segmentation")} | {"score": 1}
        for x in content["annotations"]
    ]
    figures = average_precision(path, results)
    assert figures["bbox"][0] == pytest.approx(100) and figures["segm"][0] == pytest.approx(100)
    assert average_precision(path, []) == {}


def test_classes_are_found_by_their_names(pictures, tmp_path):
    path = pictures / "annotations/val.json"
    content = json.loads(path.read_text())
    names = [entry["name"] for entry in content["categories"]]
    listed, ids = read_annotations(path, names[::-1])
    assert ids == [entry["id"] for entry in content["categories"]][::-1]
    assert {entry["file_name"] for entry in listed} == {
        p.name for p in (pictures / "val").iterdir()
    }
    assert read_annotations(path, [])[1] == sorted(ids)
    with pytest.raises(InputError, match="no category 'moon'"):
        read_annotations(path, ["moon"])
    for text in ("{", "[]", '{"images": [], "categories": [3]}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(InputError, match="no annotations in COCO's format"):
            read_annotations(tmp_path / "a.json", [])


def test_a_folder_is_evaluated(pictures, float_model):
    from ptq_det.export.predictor import OnnxPredictor

    predictor = OnnxPredictor(float_model)
    listed, ids = read_annotations(pictures / "annotations/val.json", predictor.classes)
    found = list(results_of(predictor, listed, str(pictures / "val"), ids))
    assert len(found) == 4
    assert {x["image_id"] for entries in found for x in entries} <= {x["id"] for x in listed}


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("annotations"),
        lambda content: content["annotations"].clear(),
        lambda content: content["images"].clear(),
        lambda content: content["annotations"].append({}),
        lambda content: content["images"][0].update(file_name=7),
        lambda content: content["images"][0].update(file_name="/etc/hostname"),
        lambda content: content["images"][0].update(file_name="../a.png"),
    ],
)
def test_annotations_that_cannot_be_evaluated_are_refused(change, pictures, tmp_path):
    content = json.loads((pictures / "annotations/val.json").read_text())
    change(content)
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="no annotations in COCO's format"):
        read_annotations(tmp_path / "a.json", [])


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    entries = [{"id": 1, "file_name": "a.jpg"}]
    with pytest.raises(InputError, match=r"a\.jpg: it cannot be read"):
        list(results_of(None, entries, str(tmp_path), [1]))
