import pytest
import torch
from detectron2.modeling import GeneralizedRCNN

from ptq_det import load_packed
from ptq_det.inference.sparse import pasting
from ptq_det.kernels import paste_masks, why_no_kernels

pytestmark = pytest.mark.skipif(why_no_kernels() is not None, reason=str(why_no_kernels()))


def test_masks_in_pictures_are_those_that_detectron2_pastes(file, monkeypatch):
    counts = []

    def counted(masks, *others):
        counts.append(len(masks))
        return paste_masks(masks, *others)

    monkeypatch.setattr(pasting, "paste_masks", counted)
    model = load_packed(file, engine="sparse")
    assert isinstance(model, GeneralizedRCNN)
    shape = (3, 96, 128)
    inputs = [{"image": torch.randint(0, 255, shape).float(), "height": 75, "width": 111}] * 2
    found = model(inputs)
    assert counts == [len(each["instances"]) for each in found] and sum(counts)
    inside = model.inference(inputs, do_postprocess=False)
    masks = [each.pred_masks for each in inside]
    assert all(each.shape[1:] == (1, 28, 28) and each.dtype == torch.float32 for each in masks)
    sizes = [each.image_size for each in inside]
    expected = GeneralizedRCNN._postprocess(inside, inputs, sizes)
    for one, other in zip(found, expected, strict=True):
        ours, theirs = one["instances"], other["instances"]
        assert len(ours) and ours.pred_masks.any()
        assert ours.pred_masks.dtype == torch.bool and ours.pred_masks.shape[1:] == (75, 111)
        assert torch.equal(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
        assert (ours.pred_masks != theirs.pred_masks).float().mean() < 1e-4


def test_masks_of_boxes_that_are_given(file):
    model = load_packed(file, engine="sparse")
    inputs = [{"image": torch.randint(0, 255, (3, 96, 128)).float()}]
    boxes = model.inference(inputs, do_postprocess=False)
    found = model.inference(inputs, detected_instances=boxes)[0]["instances"]
    assert len(found) == len(boxes[0]) and found.pred_masks.shape[1:] == (96, 128)
