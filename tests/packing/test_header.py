import json

import pytest
from detectron2.data import MetadataCatalog

from ptq_det.packing import PackedFileError
from ptq_det.packing.header import architecture_of, checked_ranges, class_names, config_text


def test_the_config_tells_nothing_of_its_place(cfg):
    cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR = "/secret/weights.pth", "/secret/output"
    assert "secret" not in config_text(cfg) and cfg.OUTPUT_DIR == "/secret/output"


def test_classes_are_those_of_the_data_set(cfg):
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    assert class_names(cfg) == []
    MetadataCatalog.get("of_the_header").thing_classes = ["a", "b"]
    cfg.DATASETS.TRAIN = ("of_the_header",)
    assert class_names(cfg) == ["a", "b"]
    cfg.DATASETS.TRAIN = ("few_train",)  # a COCO file tells its classes when it is read
    assert class_names(cfg)[:2] == ["circle", "square"]


def test_ranges_are_pairs_of_numbers():
    assert checked_ranges("m", {"a": [-1, 2.5]}) == {"a": (-1.0, 2.5)}
    for wrong in ({"a": [1]}, {"a": [2, 1]}, {"a": "xy"}, {"a": [0, float("inf")]}, [1], None):
        with pytest.raises(PackedFileError, match="m: its ranges"):
            checked_ranges("m", wrong)


def test_an_unknown_network_is_named():
    assert architecture_of("m", {"architecture": '["detectron2"]'}).is_detector
    with pytest.raises(PackedFileError, match=r"m: its architecture.*onnx"):
        architecture_of("m", {"architecture": json.dumps(["onnx"])})
