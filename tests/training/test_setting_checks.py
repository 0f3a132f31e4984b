import pytest

from ptq_det.errors import InputError
from ptq_det.training.setting_checks import check_settings
from tests.conftest import REPO

WRONG = [
    ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosine", "did you mean .*WarmupCosineLR"),
    ("DATALOADER.SAMPLER_TRAIN", "Foo", "not known"),
    ("INPUT.FORMAT", "XYZ", "BGR"),
    ("MODEL.BACKBONE.NAME", "build_resnet_backbon", "build_resnet_backbone"),
    ("MODEL.META_ARCHITECTURE", "RetinaNt", "RetinaNet"),
    ("MODEL.ROI_HEADS.NAME", "Foo", "not known"),
    ("MODEL.DEVICE", "gpu", "give cpu, cuda"),
    ("MODEL.PIXEL_STD", [1.0], "a number above 0"),
    ("MODEL.PIXEL_STD", [1.0, 0.0, 1.0], "a number above 0"),
    ("DATASETS.TRAIN", (), "DATASETS.TRAIN is empty"),
    ("SOLVER.BASE_LR", -1.0, "above 0"),
    ("SOLVER.CHECKPOINT_PERIOD", 0, "at least 1"),
    ("DATALOADER.NUM_WORKERS", -1, "at least 0"),
    ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "foo", "full_model"),
]


@pytest.mark.parametrize(("name", "value", "message"), WRONG)
def test_what_detectron2_does_not_take_is_said(name, value, message, cfg):
    check_settings(cfg, training=True)
    cfg.merge_from_list([name, value])
    with pytest.raises(InputError, match=message):
        check_settings(cfg, training=True)


def test_an_evaluation_reads_less(cfg):
    cfg.DATASETS.TRAIN, cfg.SOLVER.BASE_LR = (), -1.0
    check_settings(cfg, training=False)


@pytest.mark.parametrize("path", sorted((REPO / "configs").rglob("*.yaml")), ids=lambda p: p.stem)
def test_all_configs_of_the_project_are_taken(path):
    from ptq_det.training.config_file import read_config

    check_settings(read_config(str(path), []), training="Base" not in path.name)
