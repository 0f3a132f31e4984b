"""Whole ternary detectors, traced and scripted as Detectron2's tests do with those of its zoo."""

import copy
import warnings

import pytest
import torch
from detectron2.export import TracingAdapter, scripting_with_instances
from detectron2.modeling import build_model
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes
from detectron2.utils.testing import convert_scripted_instances
from torch import Tensor

from ptq_det.ternary.ternarize import ternary_layers

RCNN = {
    "proposal_boxes": Boxes,
    "objectness_logits": Tensor,
    "pred_boxes": Boxes,
    "scores": Tensor,
    "pred_classes": Tensor,
    "pred_masks": Tensor,
}
RETINANET = {name: RCNN[name] for name in ("pred_boxes", "scores", "pred_classes")}
IMAGE = torch.randint(0, 256, (3, 96, 80), generator=torch.Generator().manual_seed(0)).float()


@pytest.fixture(params=["GeneralizedRCNN", "RetinaNet"])
def model(request, cfg):
    if request.param == "RetinaNet":
        to_retinanet(cfg)
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    if request.param == "RetinaNet":  # random scores are all alike, and their order is not defined
        torch.nn.init.normal_(model.head.cls_score.weight, std=1)
    assert type(model).__name__ == request.param and len(ternary_layers(model)) > 10
    return model


def to_retinanet(cfg):
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[x, x * 1.3, x * 1.6] for x in (32, 64, 128, 256, 512)]
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
    cfg.TERNARY.SPARSITY_OVERRIDES = []


def predict(model, image):
    if hasattr(model, "roi_heads"):
        return model.inference([{"image": image}], do_postprocess=False)[0]
    return model([{"image": image}])[0]["instances"]


def same(found, expected):
    assert len(expected) > 0
    torch.testing.assert_close(found.scores, expected.scores)
    boxes, wanted = found.pred_boxes.tensor, expected.pred_boxes.tensor
    if not expected.has("pred_masks"):  # scores of RetinaNet's many boxes may be alike
        near = torch.cdist(boxes, wanted, p=float("inf")).amin(1) < 1e-3
        assert near.float().mean() > 0.9
        return
    torch.testing.assert_close(boxes, wanted)
    torch.testing.assert_close(found.pred_masks, expected.pred_masks)


@torch.no_grad()
def test_a_ternary_detector_is_traced(model):
    traceable = TracingAdapter(model, IMAGE, predict)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(traceable, (IMAGE,))
    other = torch.randint(0, 256, (3, 120, 100)).float()
    for image in (IMAGE, other):
        same(traceable.outputs_schema(traced(image)), predict(model, image))


@torch.no_grad()
def test_a_ternary_detector_is_scripted(model):
    expected = predict(model, IMAGE)
    fields = RCNN if hasattr(model, "roi_heads") else RETINANET
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = scripting_with_instances(copy.deepcopy(model), fields)
    if fields is RCNN:
        found = scripted.inference([{"image": IMAGE}], do_postprocess=False)[0]
    else:
        found = convert_scripted_instances(scripted([{"image": IMAGE}])[0])
        found = detector_postprocess(found, *IMAGE.shape[1:])
    same(found, expected)
    assert ternary_layers(model)
