import pytest
import torch

from ptq_det.errors import InputError
from ptq_det.training.config_file import read_config
from ptq_det.training.setting_checks import building, check_model_settings, check_settings
from tests.conftest import REPO

OF_A_MODEL = [
    ("MODEL.BACKBONE.NAME", "build_resnet_backbon", r"Did you mean .*build_resnet_backbone"),
    ("MODEL.BACKBONE.NAME", "Foo", "choose from build_resnet_backbone, "),
    ("MODEL.META_ARCHITECTURE", "GeneralisedRCNN", "Did you mean GeneralizedRCNN"),
    ("MODEL.META_ARCHITECTURE", "Foo", "there is not; choose from"),
    ("MODEL.PROPOSAL_GENERATOR.NAME", "Foo", "PrecomputedProposals"),
    ("MODEL.ROI_HEADS.NAME", "Foo", "StandardROIHeads"),
    ("MODEL.ROI_BOX_HEAD.NAME", "Foo", "FastRCNNConvFCHead"),
    ("MODEL.ROI_MASK_HEAD.NAME", "Foo", "MaskRCNNConvUpsampleHead"),
    ("MODEL.RPN.HEAD_NAME", "Foo", "StandardRPNHead"),
    ("MODEL.RESNETS.DEPTH", 51, "choose from 18, 34, 50, 101, 152"),
    ("MODEL.DEVICE", "gpu", "give cpu, cuda"),
    ("MODEL.DEVICE", "meta", "give cpu, cuda"),
    ("MODEL.PIXEL_STD", [1.0], "for each of the 3 of"),
    ("MODEL.PIXEL_STD", [1.0, 0.0, 1.0], "a number above 0"),
    ("MODEL.PIXEL_MEAN", [1.0, float("nan"), 1.0], "give finite numbers"),
    ("INPUT.FORMAT", "XYZ", "choose from BGR, RGB"),
    ("INPUT.FORMAT", "L", "has 1 channels, and MODEL.PIXEL_MEAN 3"),
]
OF_A_TRAINING = [
    ("SOLVER.LR_SCHEDULER_NAME", "WarmupCosine", "Did you mean .*WarmupCosineLR"),
    ("SOLVER.WARMUP_METHOD", "lin", "linear"),
    ("DATALOADER.SAMPLER_TRAIN", "Foo", "choose from TrainingSampler"),
    ("DATASETS.TRAIN", (), "is empty"),
    ("SOLVER.BASE_LR", -1.0, "above 0"),
    ("SOLVER.BASE_LR", float("nan"), "above 0"),
    ("SOLVER.MOMENTUM", -0.5, "at least 0"),
    ("SOLVER.STEPS", (5, 3), "each later than the last"),
    ("SOLVER.CHECKPOINT_PERIOD", 0, "at least 1"),
    ("TEST.EVAL_PERIOD", -1, "at least 0"),
    ("DATALOADER.NUM_WORKERS", -1, "at least 0"),
]


@pytest.mark.parametrize(("name", "value", "message"), OF_A_MODEL + OF_A_TRAINING)
def test_what_detectron2_does_not_take_is_said(name, value, message, cfg):
    check_settings(cfg, training=True)
    cfg.merge_from_list([name, value])
    with pytest.raises(InputError, match=rf"{name} .*{message}"):
        check_settings(cfg, training=True)


@pytest.mark.parametrize(("name", "value", "message"), OF_A_MODEL)
def test_a_model_that_is_packed_alone_is_checked_too(name, value, message, cfg):
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), ()
    check_model_settings(cfg)
    cfg.merge_from_list([name, value])
    with pytest.raises(InputError, match=message):
        check_model_settings(cfg)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["ENABLED", True, "CLIP_TYPE", "foo"], "choose from value, norm"),
        (["ENABLED", True, "CLIP_VALUE", 0.0], "above 0"),
    ],
)
def test_clipping_is_checked_where_there_is_some(changes, message, cfg):
    cfg.SOLVER.CLIP_GRADIENTS.merge_from_list(changes)
    with pytest.raises(InputError, match=message):
        check_settings(cfg)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    check_settings(cfg)


def test_all_that_is_wrong_is_said_at_once(cfg):
    cfg.DATASETS.TRAIN, cfg.MODEL.DEVICE, cfg.SOLVER.BASE_LR = (), "gpu", -1.0
    with pytest.raises(InputError) as error:
        check_settings(cfg)
    assert len(str(error.value).splitlines()) == 4


def test_a_gpu_that_is_not_there(cfg, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    cfg.MODEL.DEVICE = "cuda:1"
    check_settings(cfg)
    cfg.MODEL.DEVICE = "cuda:2"
    with pytest.raises(InputError, match="there are 2 GPUs; give cuda:0 to cuda:1"):
        check_settings(cfg)


def test_an_evaluation_reads_less_but_needs_a_test_set_and_a_folder(cfg, tmp_path):
    cfg.DATASETS.TRAIN, cfg.SOLVER.BASE_LR, cfg.DATASETS.TEST = (), -1.0, ("few_val",)
    check_settings(cfg, training=False)
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file/below/it"):
        cfg.OUTPUT_DIR = str(folder)
        with pytest.raises(InputError, match=r"OUTPUT_DIR .*file' is no folder"):
            check_settings(cfg, training=False)
    cfg.OUTPUT_DIR, cfg.DATASETS.TEST = str(tmp_path / "new/one"), ()
    with pytest.raises(InputError, match=r"DATASETS\.TEST is empty"):
        check_settings(cfg, training=False)


@pytest.mark.parametrize("path", sorted((REPO / "configs").rglob("*.yaml")), ids=lambda p: p.stem)
def test_all_configs_of_the_project_are_taken(path):
    cfg = read_config(str(path), ["MODEL.DEVICE", "cpu"])
    cfg.DATASETS.TRAIN = cfg.DATASETS.TRAIN or ("few_train",)  # bases name none
    check_settings(cfg)


def test_what_builders_raise_is_told_and_our_own_errors_are_kept():
    message = r"the model cannot be built .*\(KeyError: 'Foo'\)"
    with pytest.raises(InputError, match=message), building("the model"):
        {}["Foo"]
    for error in (InputError("x"), FileNotFoundError("x")):
        with pytest.raises(type(error), match=r"^x$"), building("the model"):
            raise error
