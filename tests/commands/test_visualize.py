import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from detectron2.utils.video_visualizer import VideoVisualizer

from ptq_det import pack_model, ternarize
from ptq_det.commands.draw import draw_predictions, predictor_of
from ptq_det.commands.visualize import Found, draw_frame, draw_picture
from ptq_det.errors import InputError
from ptq_det.modeling.meta_arch import build_float_model
from tests.modeling.test_architectures import narrow

# recipe of the zoo, what is found by it, what it is drawn as
KINDS = [
    ("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x", "segments"),
    ("Misc/semantic_R_50_FPN_1x", "classes"),
    ("COCO-Detection/rpn_R_50_FPN_1x", "proposals"),
    ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x", "objects"),
]


def packed_recipe(name: str, folder) -> str:
    """A packed file of a narrow model of the zoo, with random weights."""
    cfg = narrow(name)
    cfg.DATASETS.TRAIN = ()
    cfg.INPUT.MIN_SIZE_TEST = 64
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    model = build_float_model(cfg)
    ternarize(model, cfg)
    pack_model(model.eval(), cfg, folder / "m.safetensors")
    return str(folder / "m.safetensors")


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_every_kind_of_model_is_drawn_into_pictures_and_frames(name, kind, tmp_path):
    predictor, metadata = predictor_of(packed_recipe(name, tmp_path))
    picture = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    args = (predictor, metadata, [str(tmp_path / "a.png")], tmp_path / "out", 0.0)
    (drawing,) = draw_predictions(*args)
    assert drawing.found.kind == kind and drawing.found.count > 0
    before = cv2.resize(picture, (480, 360), interpolation=cv2.INTER_NEAREST)
    after = cv2.imread(str(drawing.path))
    assert after.shape == before.shape and (after != before).mean() > 0.01
    found, frames = Found.of(predictor(picture), 0.0), VideoVisualizer(metadata)
    for _ in range(2):
        frame = draw_frame(picture, found, frames)
        assert frame.shape == picture.shape and (frame != picture).mean() > 0.01


def test_the_best_proposals_are_drawn_by_their_score():
    proposals = Instances((50, 50), proposal_boxes=Boxes(torch.rand(30, 4).cumsum(1) * 10))
    proposals.objectness_logits = torch.linspace(-3, 3, 30)
    found = Found.of({"proposals": proposals}, 0.5)
    assert str(found) == "15 proposals" and found.instances.scores.min() > 0.5
    assert found.instances.scores[0] == torch.tensor(3.0).sigmoid()
    assert Found.of({"proposals": proposals}, 0.0).count == 20


def test_a_panoptic_model_lays_masks_by_the_threshold(tmp_path):
    predictor, metadata = predictor_of(packed_recipe(KINDS[0][0], tmp_path))
    list(draw_predictions(predictor, metadata, [], tmp_path, 0.25))
    assert predictor.model.combine_instances_score_thresh == 0.25


def test_classes_of_pixels_keep_their_colours(tmp_path):
    _, metadata = predictor_of(packed_recipe(KINDS[1][0], tmp_path))
    pixels = torch.zeros(60, 80, dtype=torch.long)
    pixels[:, 40:] = 53
    found, black = Found("classes", 2, pixels=pixels), np.zeros((60, 80, 3), np.uint8)
    one, two = (draw_picture(black, found, metadata, 4) for _ in range(2))
    assert np.array_equal(one, two) and not np.array_equal(one[:, :40], one[:, -40:])


def test_a_model_that_needs_proposals_is_refused(tmp_path):
    with pytest.raises(InputError, match="is a Fast R-CNN, which needs proposals"):
        predictor_of(packed_recipe("COCO-Detection/fast_rcnn_R_50_FPN_1x", tmp_path))


def test_what_cannot_be_drawn_is_said():
    with pytest.raises(InputError, match="how to draw depth"):
        Found.of({"depth": CfgNode()}, 0.5)
