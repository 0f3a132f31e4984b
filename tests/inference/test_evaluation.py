import logging

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, PascalVOCDetectionEvaluator
from detectron2.modeling import FPN
from detectron2.structures import Instances

from ptq_det.errors import InputError
from ptq_det.inference import evaluation
from ptq_det.inference.evaluation import (
    build_evaluator,
    load_for_evaluation,
    packed_weights,
)
from ptq_det.inference.int8.backbone import Int8FPN
from tests.inference.conftest import PICTURE


def test_the_evaluator_follows_from_the_metadata(cfg):
    assert isinstance(build_evaluator(cfg, "few_val"), COCOEvaluator)
    assert isinstance(build_evaluator(cfg, "voc_2007_test"), PascalVOCDetectionEvaluator)


def test_a_test_set_of_another_order_is_evaluated_by_name(cfg, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("ptq_det"), "propagate", True)
    DatasetCatalog.get("few_train")
    names = list(MetadataCatalog.get("few_train").thing_classes)
    seen = []

    class Evaluator(DatasetEvaluator):
        def process(self, inputs, outputs):
            seen.extend(outputs[0]["instances"].pred_classes.tolist())

    monkeypatch.setitem(evaluation._EVALUATORS, "seen", [lambda name, folder: Evaluator()])
    for name, order in (("same_order", names), ("other_order", names[::-1])):
        MetadataCatalog.get(name).set(evaluator_type="seen", thing_classes=order)
        found = Instances((9, 9), pred_classes=torch.tensor([0, 1, 5]))
        build_evaluator(cfg, name).process([{}], [{"instances": found}])
    assert seen == [0, 1, 5, 5, 4, 0]
    assert "other_order has the classes in another order" in caplog.text
    assert "same_order has" not in caplog.text


def test_an_unknown_type_is_refused(cfg):
    MetadataCatalog.get("odd_val").set(evaluator_type="odd")
    with pytest.raises(NotImplementedError, match=r"'odd_val' has the evaluator_type 'odd'"):
        build_evaluator(cfg, "odd_val")


def test_evaluation_takes_thresholds_from_the_config(file, cfg):
    cfg.TEST.DETECTIONS_PER_IMAGE = 3
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    kinds = {"": FPN, "float": FPN, "int8": Int8FPN}
    for cfg.TERNARY.ENGINE, kind in kinds.items():
        assert packed_weights(cfg, f"{file}?matching_heuristics=True") == file
        model = load_for_evaluation(cfg, file)
        assert type(model.backbone) is kind
        assert len(model([PICTURE])[0]["instances"]) == 3


def test_an_engine_needs_a_packed_file(cfg, tmp_path):
    torch.save({}, tmp_path / "model_final.pth")
    for weights in ("", str(tmp_path / "model_final.pth")):
        cfg.TERNARY.ENGINE = ""
        assert packed_weights(cfg, weights) is None
        cfg.TERNARY.ENGINE = "int8"
        with pytest.raises(InputError, match=r"int8 runs packed files.*model_final\.safetensors"):
            packed_weights(cfg, weights)


@pytest.mark.parametrize("engine", ["float", "int8"])
@pytest.mark.parametrize(
    ("node", "key", "value"),
    [("FPN", "OUT_CHANNELS", 8), ("ROI_HEADS", "NUM_CLASSES", 3), ("ROI_BOX_HEAD", "FC_DIM", 64)],
)
def test_a_file_of_another_config_is_refused(engine, node, key, value, file, cfg):
    cfg.MODEL[node][key] = value
    with pytest.raises(InputError, match=r"has the shape \(.*of another config.*packed_config"):
        load_for_evaluation(cfg, file, engine)
