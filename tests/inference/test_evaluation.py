import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator
from detectron2.modeling import FPN

from ptq_det.errors import InputError
from ptq_det.inference.evaluation import (
    build_evaluator,
    load_for_evaluation,
    names_packed_model,
)
from ptq_det.inference.int8.backbone import Int8FPN
from tests.inference.conftest import PICTURE


def test_the_evaluator_follows_from_the_metadata(cfg):
    assert isinstance(build_evaluator(cfg, "few_val"), COCOEvaluator)
    assert isinstance(build_evaluator(cfg, "voc_2007_test"), PascalVOCDetectionEvaluator)


def test_an_unknown_type_is_refused(cfg):
    MetadataCatalog.get("odd_val").set(evaluator_type="odd")
    with pytest.raises(NotImplementedError, match=r"'odd_val' has the evaluator_type 'odd'"):
        build_evaluator(cfg, "odd_val")


def test_evaluation_takes_thresholds_from_the_config(file, cfg):
    cfg.MODEL.WEIGHTS = file
    cfg.TEST.DETECTIONS_PER_IMAGE = 3
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    kinds = {"": FPN, "float": FPN, "int8": Int8FPN}
    for cfg.TERNARY.ENGINE, kind in kinds.items():
        assert names_packed_model(cfg)
        model = load_for_evaluation(cfg)
        assert type(model.backbone) is kind
        assert len(model([PICTURE])[0]["instances"]) == 3


def test_an_engine_needs_a_packed_file(cfg, tmp_path):
    torch.save({}, tmp_path / "model_final.pth")
    for weights in ("", str(tmp_path / "model_final.pth")):
        cfg.MODEL.WEIGHTS, cfg.TERNARY.ENGINE = weights, ""
        assert not names_packed_model(cfg)
        cfg.TERNARY.ENGINE = "int8"
        with pytest.raises(InputError, match=r"int8 runs packed files.*model_final\.safetensors"):
            names_packed_model(cfg)


def test_a_file_of_another_config_is_refused(file, cfg):
    cfg.MODEL.WEIGHTS = file
    cfg.MODEL.FPN.OUT_CHANNELS = 8
    with pytest.raises(InputError, match=r"\(16, .*of another config.*packed_config\(path\)"):
        load_for_evaluation(cfg)
