import copy
import json
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


def test_a_test_set_of_another_order_is_evaluated_by_name(cfg, monkeypatch, log):
    DatasetCatalog.get("few_train")
    names = list(MetadataCatalog.get("few_train").thing_classes)
    seen = []

    class Evaluator(DatasetEvaluator):
        def process(self, inputs, outputs):
            seen.extend(outputs[0]["instances"].pred_classes.tolist())

    monkeypatch.setitem(evaluators._EVALUATORS, "seen", [lambda cfg, name, folder: Evaluator()])
    for name, order in (("same_order", names), ("other_order", names[::-1])):
        MetadataCatalog.get(name).set(evaluator_type="seen", thing_classes=order)
        found = Instances((9, 9), pred_classes=torch.tensor([0, 1, 5]))
        build_evaluator(cfg, name).process([{}], [{"instances": found}])
    assert seen == [0, 1, 5, 5, 4, 0]
    assert "other_order has the classes in another order" in log.text
    assert "same_order has" not in log.text


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
    results = [perfect(cfg, name, tmp_path / name, 1) for name in ("few_val", "bare_val")]
    assert results[0]["AP"] > 50 and results[0]["APs"] > 0
    assert results[0] == pytest.approx(results[1], nan_ok=True)


def perfect(cfg, name, folder, offset=0, keypoints=False):
    """Figures of predictions that are the annotations, moved by some pixels."""
    evaluator = build_evaluator(cfg, name, str(folder))
    evaluator.reset()
    for record in DatasetCatalog.get(name):
        found = Instances((record["height"], record["width"]))
        annotations = [x for x in record["annotations"] if not x.get("iscrowd")]
        boxes = torch.tensor([x["bbox"] for x in annotations])
        boxes[:, 2:] += boxes[:, :2]
        found.pred_boxes = Boxes(boxes + offset)
        found.pred_classes = torch.tensor([x["category_id"] for x in annotations])
        found.scores = torch.linspace(0.9, 0.5, len(boxes))
        if keypoints:
            points = [x["keypoints"] for x in annotations]
            found.pred_keypoints = torch.tensor(points).reshape(len(boxes), -1, 3)
        evaluator.process([record], [{"instances": found}])
    return evaluator.evaluate()["keypoints" if keypoints else "bbox"]


def changed(name, change, tmp_path, pictures):
    """Register the few pictures for tests with other annotations."""
    content = json.loads(Path(MetadataCatalog.get("few_val").json_file).read_text())
    change(content)
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
    register_coco_instances(name, {}, str(tmp_path / f"{name}.json"), str(pictures / "val"))


def test_annotations_numbered_from_0_are_matched(cfg, tmp_path, pictures):
    def from_0(content):
        for i, annotation in enumerate(content["annotations"]):
            annotation["id"] = i

    changed("from_0_val", from_0, tmp_path, pictures)
    figures = perfect(cfg, "from_0_val", tmp_path / "out")
    assert figures["AP"] == pytest.approx(100)


def test_own_keypoints_are_evaluated(cfg, tmp_path, pictures):
    def with_keypoints(content):
        for i, annotation in enumerate(content["annotations"]):
            x, y, width, height = annotation["bbox"]
            annotation["area"] = 2000
            annotation["keypoints"] = [x + 1, y + 1, 2, x + width - 1, y + height - 1, 2, 0, 0, 0]
            if i == 0:
                annotation["iscrowd"] = 1
                del annotation["keypoints"]

    changed("points_val", with_keypoints, tmp_path, pictures)
    cfg.TEST.KEYPOINT_OKS_SIGMAS = [0.05, 0.05, 0.05]
    figures = perfect(cfg, "points_val", tmp_path / "out", keypoints=True)
    assert figures["AP"] == pytest.approx(100)


def test_annotations_of_an_earlier_run_are_not_reused(cfg, tmp_path):
    def records(width):
        box = {"bbox": [1, 1, width, 9], "bbox_mode": 1, "category_id": 0}
        return [{"file_name": "a", "image_id": 1, "width": 64, "height": 64, "annotations": [box]}]

    for name, width in (("run_1_val", 20), ("run_2_val", 40)):
        DatasetCatalog.register(name, lambda width=width: records(width))
        MetadataCatalog.get(name).set(evaluator_type="coco", thing_classes=["a"])
    build_evaluator(cfg, "run_1_val", str(tmp_path))
    (tmp_path / "run_1_val_coco_format.json").rename(tmp_path / "run_2_val_coco_format.json")
    truth = build_evaluator(cfg, "run_2_val", str(tmp_path))._coco_api
    assert truth.anns[1]["bbox"][2] == 40
