import json

import pytest
from detectron2.config import instantiate
from detectron2.data import MetadataCatalog
from torch import nn

from ptq_det.packing import PackedFileError
from ptq_det.packing.header import Header, class_names, number_in, number_of_classes
from tests.lazy_models import narrow_rcnn, narrow_retinanet


def texts(**changes):
    values = {"architecture": ["detectron2"], "classes": ["a"], "layers": {"x": {}}, "ranges": {}}
    values |= changes
    return {"config": "{}", **{name: json.dumps(value) for name, value in values.items()}}


def test_classes_are_those_of_the_training_set_if_they_are_as_many(cfg):
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), ("coco_2017_val",)
    assert class_names(cfg) == []
    MetadataCatalog.get("of_the_header").thing_classes = ["a", "b"]
    MetadataCatalog.get("of_another").thing_classes = ["b", "a"]
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("of_the_header",), ("of_another",)
    assert class_names(cfg) == ["a", "b"]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    assert class_names(cfg) == []
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 6
    cfg.DATASETS.TRAIN = ("few_train",)  # a COCO file tells its classes when it is read
    assert class_names(cfg)[:2] == ["circle", "square"]
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    assert class_names(cfg) == [] and number_of_classes(cfg) == 80


def test_the_texts_of_a_header():
    header = Header.of(texts(ranges={"a": [-1, 2.5]}), "m")
    assert header.architecture.is_detector and header.classes == ["a"]
    assert header.ranges == {"a": (-1.0, 2.5)} and header.layers == {"x": {}}
    without = texts()
    del without["ranges"]  # version 1 has none
    assert Header.of(without, "m").ranges == {}


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": ["onnx"]},
        {"architecture": 3},
        {"classes": "ab"},
        {"classes": [1]},
        {"layers": []},
        {"layers": {"x": 3}},
        *({"ranges": wrong} for wrong in ({"a": [1]}, {"a": [2, 1]}, {"a": "xy"}, [1], None)),
        {"ranges": {"a": [0, float("inf")]}},
        {"ranges": {"a": [0, 10**400]}},  # more than a float holds
        {"ranges": {"a": [-1e308, 1e308]}},
        {"classes": ["\ud83d"]},  # half a character, which nothing can print
    ],
)
def test_what_says_something_else_is_refused(change):
    with pytest.raises(PackedFileError, match="m: its"):
        Header.of(texts(**change), "m")


@pytest.mark.parametrize("name", ["architecture", "classes", "layers", "config"])
def test_what_is_missing_or_no_json_is_named(name):
    lacking = texts()
    del lacking[name]
    with pytest.raises(PackedFileError, match=f"m: its header lacks '{name}'"):
        Header.of(lacking, "m")
    if name != "config":
        for text in ("[", "[" * 100_000):
            with pytest.raises(PackedFileError, match=f"m: {name} is no JSON"):
                Header.of({**texts(), name: text}, "m")


def test_a_detector_tells_how_many_classes_it_has():
    assert number_in(instantiate(narrow_rcnn())) == 2
    assert number_in(instantiate(narrow_retinanet())) == 2
    assert number_in(nn.Linear(2, 2)) is None
