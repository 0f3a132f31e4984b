import pytest
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOEvaluator, PascalVOCDetectionEvaluator

from ptq_det.inference.evaluation import build_evaluator


def test_the_evaluator_follows_from_the_metadata(cfg):
    assert isinstance(build_evaluator(cfg, "few_val"), COCOEvaluator)
    assert isinstance(build_evaluator(cfg, "voc_2007_test"), PascalVOCDetectionEvaluator)


def test_an_unknown_type_is_refused(cfg):
    MetadataCatalog.get("odd_val").set(evaluator_type="odd")
    with pytest.raises(NotImplementedError, match=r"'odd_val' has the evaluator_type 'odd'"):
        build_evaluator(cfg, "odd_val")
