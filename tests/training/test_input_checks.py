import numpy as np
import pytest
from detectron2.data.transforms import ResizeShortestEdge

from ptq_det.errors import InputError
from ptq_det.training.input_checks import (
    check_augmentation,
    check_expected_results,
    check_proposals,
    check_sizes,
)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MIN_SIZE_TEST", -1, r"INPUT\.MIN_SIZE_TEST is -1; set it to the pixels"),
        ("MAX_SIZE_TEST", 0, r"INPUT\.MAX_SIZE_TEST is 0; .* e\.g\. 1333"),
        ("MAX_SIZE_TEST", -5, r"INPUT\.MAX_SIZE_TEST is -5"),
        ("MIN_SIZE_TRAIN", (), r"INPUT\.MIN_SIZE_TRAIN is \(\)"),
        ("MIN_SIZE_TRAIN", (64, -1), r"INPUT\.MIN_SIZE_TRAIN is \(64, -1\)"),
        ("MAX_SIZE_TRAIN", 0, r"INPUT\.MAX_SIZE_TRAIN is 0"),
        ("MIN_SIZE_TRAIN_SAMPLING", "any", "choose 'choice' or 'range'"),
        ("RANDOM_FLIP", "both", "choose 'none', 'horizontal' or"),
        ("MASK_FORMAT", "rle", "choose 'polygon' or 'bitmask'"),
    ],
)
def test_sizes_that_fail_at_the_first_picture(cfg, key, value, message):
    check_sizes(cfg)
    cfg.INPUT[key] = value
    with pytest.raises(InputError, match=message):
        check_sizes(cfg)
    if "TEST" not in key:
        check_sizes(cfg, training=False)


def test_size_0_leaves_pictures_as_they_are(cfg):
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.INPUT.MIN_SIZE_TRAIN = 0, 0, (0,)
    check_sizes(cfg)
    pixels = np.zeros((5, 7, 3))
    assert ResizeShortestEdge(0, 0, "choice").get_transform(pixels).apply_image(pixels) is pixels


def test_sizes_of_a_range(cfg):
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "range"
    for good in ((64, 96), (64, 64)):
        cfg.INPUT.MIN_SIZE_TRAIN = good
        check_sizes(cfg)
    for bad in ((64,), (64, 80, 96), (96, 64)):
        cfg.INPUT.MIN_SIZE_TRAIN = bad
        with pytest.raises(InputError, match="the least and the largest size"):
            check_sizes(cfg)


def test_augmentation_that_detectron2_lacks(cfg):
    cfg.MODEL.KEYPOINT_ON = cfg.MODEL.LOAD_PROPOSALS = True
    check_augmentation(cfg)  # there is none
    cfg.TEST.AUG.ENABLED = True
    with pytest.raises(InputError, match=r"TEST\.AUG\.ENABLED is True.*not for keypoints"):
        check_augmentation(cfg)
    cfg.MODEL.KEYPOINT_ON = False
    with pytest.raises(InputError, match=r"not for MODEL\.LOAD_PROPOSALS"):
        check_augmentation(cfg)
    cfg.MODEL.LOAD_PROPOSALS = False
    check_augmentation(cfg)
    for sizes in ((), (64, -1)):
        cfg.TEST.AUG.MIN_SIZES = sizes
        with pytest.raises(InputError, match=r"TEST\.AUG\.MIN_SIZES is \("):
            check_augmentation(cfg)
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE = (64,), 0
    with pytest.raises(InputError, match=r"TEST\.AUG\.MAX_SIZE is 0"):
        check_augmentation(cfg)
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    with pytest.raises(InputError, match="not for RetinaNet"):
        check_augmentation(cfg)


def test_proposals_are_there_for_each_data_set(cfg, tmp_path):
    check_proposals(cfg)
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = "PrecomputedProposals"
    with pytest.raises(InputError, match="but none are loaded"):
        check_proposals(cfg)
    cfg.MODEL.LOAD_PROPOSALS = True
    with pytest.raises(InputError, match=r"_TRAIN has 0 files for 1 data sets of DATASETS\.TRAIN"):
        check_proposals(cfg)
    check_proposals(cfg, training=False)
    cfg.DATASETS.TEST = ("few_val",)
    with pytest.raises(InputError, match="PROPOSAL_FILES_TEST has 0 files for 1"):
        check_proposals(cfg, training=False)
    (tmp_path / "p.pkl").write_bytes(b"")
    there = (str(tmp_path / "p.pkl"),)
    cfg.DATASETS.PROPOSAL_FILES_TRAIN = cfg.DATASETS.PROPOSAL_FILES_TEST = there
    check_proposals(cfg)
    cfg.DATASETS.PROPOSAL_FILES_TEST = ("nowhere.pkl",)
    with pytest.raises(InputError, match=r"names 'nowhere\.pkl', which is not there"):
        check_proposals(cfg)
    cfg.DATASETS.PROPOSAL_FILES_TEST = there * 2
    with pytest.raises(InputError, match="has 2 files for 1"):
        check_proposals(cfg)


GOOD = ["bbox", "AP", 38.5, 0.2]


@pytest.mark.parametrize(
    "entries",
    [
        GOOD,
        "bbox",
        [["bbox", "AP", 38.5]],
        [["bbox", "AP", 38.5, 0.2, 1]],
        [["bbox", 38.5, "AP", 0.2]],
        [["bbox", "AP", "38.5", 0.2]],
        [["bbox", "AP", float("nan"), 0.2]],
        [["bbox", "AP", 38.5, -1]],
        [GOOD, {"bbox": 1}],
    ],
)
def test_expectations_that_are_none(cfg, entries):
    cfg.DATASETS.TEST = ("few_val",)
    cfg.TEST.EXPECTED_RESULTS = entries
    with pytest.raises(InputError, match=r"EXPECTED_RESULTS is .*\[task, metric, value, toleran"):
        check_expected_results(cfg)


def test_expectations_of_what_is_evaluated(cfg):
    check_expected_results(cfg)
    cfg.TEST.EXPECTED_RESULTS = [GOOD, ["segm", "AP-circle", 1, 1]]
    for names in ((), ("few_val", "few_train")):
        cfg.DATASETS.TEST = names
        with pytest.raises(InputError, match=f"DATASETS.TEST has {len(names)}; give one"):
            check_expected_results(cfg)
    cfg.DATASETS.TEST = ("few_val",)
    check_expected_results(cfg)
    cfg.TEST.EXPECTED_RESULTS = [["keypoints", "AP", 1, 1]]
    with pytest.raises(InputError, match=r"task 'keypoints', which .* choose from bbox, segm$"):
        check_expected_results(cfg)
    cfg.TEST.EXPECTED_RESULTS = [["bbox", "mAP", 1, 1]]
    with pytest.raises(InputError, match="metric 'mAP', which there is not"):
        check_expected_results(cfg)
    cfg.TEST.EXPECTED_RESULTS, cfg.TEST.AUG.ENABLED = [["bbox_TTA", "AP", 1, 1]], True
    check_expected_results(cfg, training=False)
    with pytest.raises(InputError, match="task 'bbox_TTA', which is not evaluated"):
        check_expected_results(cfg, training=True)
