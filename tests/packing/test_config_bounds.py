import json
import time

import pytest
from detectron2.config import get_cfg

from ptq_det.packing import PackedFileError
from ptq_det.packing.model_config import merge_config

BEYOND = {
    "anchors a place": {"ANCHOR_GENERATOR": {"SIZES": [[1] * 60], "ASPECT_RATIOS": [[1] * 60]}},
    "3000 entries": {"ANCHOR_GENERATOR": {"SIZES": [[1] * 3000], "ASPECT_RATIOS": [[1] * 3000]}},
    "300 entries": {
        "ANCHOR_GENERATOR": {
            "NAME": "RotatedAnchorGenerator",
            "SIZES": [[1] * 300],
            "ASPECT_RATIOS": [[1] * 300],
            "ANGLES": [[1] * 300],
        }
    },
    "POST_NMS_TOPK_TEST is -1": {"RPN": {"POST_NMS_TOPK_TEST": -1}},
    "PRE_NMS_TOPK_TEST is 4000000": {"RPN": {"PRE_NMS_TOPK_TEST": 4_000_000}},
    "SCORE_THRESH_TEST is 2": {"ROI_HEADS": {"SCORE_THRESH_TEST": 2.0}},
    "NMS_THRESH_TEST is -0.5": {"ROI_HEADS": {"NMS_THRESH_TEST": -0.5}},
    "POOLER_RESOLUTION is 4000": {"ROI_MASK_HEAD": {"POOLER_RESOLUTION": 4000}},
    "POOLER_SAMPLING_RATIO is 900": {"ROI_BOX_HEAD": {"POOLER_SAMPLING_RATIO": 900}},
    "PIXEL_STD": {"PIXEL_STD": [1.0]},
    "PIXEL_STD is": {"PIXEL_STD": [1.0, 0.0, 1.0]},
    "PIXEL_MEAN": {"PIXEL_MEAN": []},
}


@pytest.mark.parametrize("message", BEYOND)
def test_models_that_no_detector_needs_are_refused_at_once(message):
    start = time.perf_counter()
    with pytest.raises(PackedFileError, match=message):
        merge_config(json.dumps({"MODEL": BEYOND[message]}), get_cfg(), "m")
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    ("node", "key", "value"),
    [
        ("INPUT", "MIN_SIZE_TEST", 4_194_304),
        ("INPUT", "MAX_SIZE_TEST", 4_194_304),
        ("INPUT", "MIN_SIZE_TEST", -5),
        ("INPUT", "MAX_SIZE_TEST", 0),
        ("INPUT", "FORMAT", "XYZ"),
        ("TEST", "DETECTIONS_PER_IMAGE", -7),
        ("TEST", "DETECTIONS_PER_IMAGE", 4_000_000),
    ],
)
def test_pictures_and_detections_are_bounded(node, key, value):
    with pytest.raises(PackedFileError, match=f"{node}.{key} is {value}"):
        merge_config(json.dumps({node: {key: value}}), get_cfg(), "m")


def test_a_whole_rotated_model_is_taken():
    cfg = get_cfg()
    stored = {
        "PROPOSAL_GENERATOR": {"NAME": "RRPN"},
        "ANCHOR_GENERATOR": {"NAME": "RotatedAnchorGenerator"},
        "ROI_HEADS": {"NAME": "RROIHeads"},
    }
    merge_config(json.dumps({"MODEL": stored}), cfg, "m")
    assert cfg.MODEL.PROPOSAL_GENERATOR.NAME == "RRPN"
