import pytest
from detectron2.config import get_cfg

from ptq_det import add_ternary_config
from ptq_det.settings import TernarySettings


def test_only_the_node_is_added_and_a_second_call_keeps_values(repo):
    cfg = get_cfg()
    stock = cfg.dump()
    add_ternary_config(cfg)
    cfg.TERNARY.SPARSITY = 0.5
    add_ternary_config(cfg)
    assert cfg.TERNARY.SPARSITY == 0.5
    del cfg["TERNARY"]
    assert cfg.dump() == stock


def test_every_key_has_a_comment(repo):
    lines = (repo / "ptq_det/config.py").read_text().splitlines()
    keys = [i for i, line in enumerate(lines) if line.startswith("    cfg.TERNARY.")]
    assert len(keys) > 10
    for i in keys:
        above = lines[i - 1].strip()
        assert above.startswith("#") or "cfg.TERNARY." in above, lines[i]


@pytest.mark.parametrize(
    "name",
    [
        "backbone.bottom_up.stem.conv1",
        "proposal_generator.rpn_head.anchor_deltas",
        "roi_heads.box_predictor.cls_score",
        "roi_heads.box_predictor.2.bbox_pred",  # cascaded
        "roi_heads.mask_head.predictor",
        "roi_heads.keypoint_head.score_lowres",
        "roi_heads.mask_head.coarse_head.prediction",  # PointRend
        "roi_heads.mask_head.point_head.predictor",
        "sem_seg_head.predictor",
        "ins_embed_head.center_predictor",  # Panoptic-DeepLab
        "ins_embed_head.offset_predictor",
        "head.cls_score",
        "head.ctrness",
    ],
)
def test_what_makes_scores_boxes_and_masks_stays_in_float(name):
    assert TernarySettings.from_cfg(get_cfg()).is_skipped(name)


@pytest.mark.parametrize(
    "name",
    [
        "roi_heads.box_head.fc1",
        "roi_heads.mask_head.deconv",
        "head.cls_subnet.0",
        "sem_seg_head.p2.0",
    ],
)
def test_heads_themselves_do_not(name):
    assert TernarySettings.from_cfg(get_cfg()).is_skipped(name) is None
