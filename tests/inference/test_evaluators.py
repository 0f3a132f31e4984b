import copy
import json
import logging
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, PascalVOCDetectionEvaluator
from detectron2.structures import Boxes, Instances

from ptq_det.inference import evaluators
from ptq_det.inference.evaluators import build_evaluator


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

    monkeypatch.setitem(evaluators._EVALUATORS, "seen", [lambda name, folder: Evaluator()])
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


def test_annotations_without_area_and_iscrowd_are_evaluated_alike(cfg, tmp_path, pictures):
    content = json.loads(Path(MetadataCatalog.get("few_val").json_file).read_text())
    bare = copy.deepcopy(content)
    for annotation in bare["annotations"]:
        del annotation["area"], annotation["iscrowd"]
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    register_coco_instances("bare_val", {}, str(tmp_path / "bare.json"), str(pictures / "val"))
    cfg.MODEL.MASK_ON = False
    results = []
    for name in ("few_val", "bare_val"):
        evaluator = build_evaluator(cfg, name, str(tmp_path / name))
        evaluator.reset()
        for record in DatasetCatalog.get(name):
            found = Instances((record["height"], record["width"]))
            boxes = torch.tensor([x["bbox"] for x in record["annotations"]])
            boxes[:, 2:] += boxes[:, :2]
            found.pred_boxes = Boxes(boxes + 1)
            found.pred_classes = torch.tensor([x["category_id"] for x in record["annotations"]])
            found.scores = torch.linspace(0.9, 0.5, len(boxes))
            evaluator.process([record], [{"instances": found}])
        results.append(evaluator.evaluate()["bbox"])
    assert results[0]["AP"] > 50 and results[0]["APs"] > 0
    assert results[0] == pytest.approx(results[1], nan_ok=True)
