import importlib.util

import pytest

from ptq_det.errors import InputError
from ptq_det.training.preflight import (
    check_crop,
    check_device,
    check_output,
    check_packed,
    check_weights,
    preflight,
)


def test_weights_must_be_there(tmp_path):
    check_weights("")
    check_weights("ptq_det://shapes_mask_rcnn_float.safetensors")
    for missing in (str(tmp_path / "w.pth"), "ptq_det://other.safetensors"):
        with pytest.raises(InputError, match="not found"):
            check_weights(missing)
    (tmp_path / "w.pkl").write_bytes(b"")
    check_weights(str(tmp_path / "w.pkl") + "?matching_heuristics=True")


def test_a_resumed_training_needs_its_teacher(cfg, tmp_path):
    cfg.MODEL.WEIGHTS = str(tmp_path / "float.pth")
    (tmp_path / "float.pth").touch()
    cfg.TERNARY.DISTILLATION = 1.0
    preflight(cfg, resume=True)
    cfg.MODEL.WEIGHTS = str(tmp_path / "moved.pth")
    with pytest.raises(InputError, match="not found"):
        preflight(cfg, resume=True)
    cfg.MODEL.WEIGHTS = ""
    with pytest.raises(InputError, match="needs a float model"):
        preflight(cfg)
    cfg.TERNARY.DISTILLATION = 0.0
    preflight(cfg, resume=True)


def test_weights_that_cannot_be_downloaded_say_so():
    with pytest.raises(InputError, match="could not be downloaded"):
        check_weights("http://127.0.0.1:9/weights.pkl")


def test_a_device_that_is_not_there_is_refused(cfg, monkeypatch):
    check_device(cfg)
    cfg.SOLVER.AMP.ENABLED = True
    check_device(cfg)
    cfg.MODEL.DEVICE = "mps"
    with pytest.raises(InputError, match=r"set SOLVER\.AMP\.ENABLED False"):
        check_device(cfg)
    cfg.MODEL.DEVICE = "cuda"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=r"set MODEL\.DEVICE cpu"):
        check_device(cfg)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    check_device(cfg)


def test_there_is_something_to_train_and_a_place_for_it(cfg, tmp_path):
    check_output(cfg)
    (tmp_path / "file").write_text("")
    cfg.OUTPUT_DIR = str(tmp_path / "file")
    with pytest.raises(InputError, match=r"OUTPUT_DIR '.*file' cannot be written to"):
        check_output(cfg)
    cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER = str(tmp_path), 0
    with pytest.raises(InputError, match=r"MAX_ITER is 0.*--eval-only"):
        check_output(cfg)


def test_cropping_polygons_needs_shapely(cfg, monkeypatch):
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.MASK_FORMAT = True, "polygon"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"install shapely, or set INPUT\.MASK_FORMAT bitm"):
        check_crop(cfg)
    cfg.INPUT.MASK_FORMAT = "bitmask"
    check_crop(cfg)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    cfg.INPUT.MASK_FORMAT = "polygon"
    check_crop(cfg)


def test_all_that_is_wrong_is_said_at_once(cfg, tmp_path):
    cfg.DATASETS.TEST = ("few_val",)
    preflight(cfg)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 80
    with pytest.raises(InputError, match=r"^data set 'few_train' has 6 classes"):
        preflight(cfg)
    cfg.TERNARY.SPARSITY, cfg.SOLVER.MAX_ITER = 1.5, 0
    cfg.SOLVER.IMS_PER_BATCH, cfg.MODEL.WEIGHTS = 3, str(tmp_path / "none.pth")
    with pytest.raises(InputError) as error:
        preflight(cfg, processes=2)
    message = str(error.value)
    assert message.startswith("5 things would fail or mislead:\n1. ")
    for part in (
        "TERNARY.SPARSITY is 1.5",
        "IMS_PER_BATCH is 3",
        "MAX_ITER is 0",
        "none.pth",
        "80",
    ):
        assert part in message
    with pytest.raises(InputError, match=r"^2 things"):  # an evaluation reads less
        cfg.MODEL.WEIGHTS = ""
        preflight(cfg, training=False, processes=2)


def test_data_that_are_not_there_are_named_with_the_rest(cfg):
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("few_trian",), ("few_vla",)
    with pytest.raises(InputError, match=r"(?s)few_trian.*few_vla"):
        preflight(cfg)


def test_settings_of_the_last_evaluation_are_looked_at(cfg):
    cfg.DATASETS.TEST = ("few_val",)
    cfg.INPUT.MAX_SIZE_TEST, cfg.MODEL.LOAD_PROPOSALS, cfg.TEST.AUG.ENABLED = 0, True, True
    cfg.TEST.EXPECTED_RESULTS = [["bbox", "AP", 1]]
    with pytest.raises(InputError, match=r"^4 things") as error:
        preflight(cfg)
    for part in ("MAX_SIZE_TEST is 0", "PROPOSAL_FILES_TRAIN", "TEST.AUG", "EXPECTED_RESULTS"):
        assert part in str(error.value)


def test_a_config_that_no_packed_file_may_have_is_refused_before_the_training(cfg):
    cfg.TERNARY.ENABLED = True
    check_packed(cfg)
    cfg.INPUT.MIN_SIZE_TEST = 10**6
    with pytest.raises(InputError, match=r"MIN_SIZE_TEST.*docs/file_format\.md has the bounds"):
        check_packed(cfg)
    cfg.TERNARY.ENABLED = False
    check_packed(cfg)
