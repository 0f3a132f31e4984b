"""A tiny Mask R-CNN and a few generated pictures, for tests of the whole path."""

import logging
import os
from pathlib import Path

import setuptools  # noqa: F401  (behind distutils, which some library imports, it cannot be)

import tests.deformable  # noqa: F401  # isort: skip  (before anything of Detectron2)

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data.datasets import register_coco_instances
from detectron2.utils.logger import setup_logger

from ptq_det import TernaryTrainer, add_ternary_config
from ptq_det.data.shapes import generate_shapes
from ptq_det.sizing import target

REPO = Path(__file__).parents[1]
torch.set_num_threads(1)  # faster for such small tensors, and steadier on a busy machine
torch.backends.cudnn.allow_tf32 = False  # convolutions on a GPU are as exact as those on a CPU


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    """Where tensors are: on the CPU, and where there is a GPU, on that too. Configs name it."""
    return request.param


@pytest.fixture
def two_processes(monkeypatch) -> str:
    """Where two processes that Detectron2 launches are: each on a GPU (NCCL) where there are two,
    else on the CPU (gloo)."""
    if torch.cuda.device_count() > 1:
        return "cuda"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return "cpu"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what runs on each device there is, and skip what needs a GPU where there is none."""
    for item in items:
        if "device" in item.fixturenames:
            item.add_marker(pytest.mark.device)
        if "device" in item.fixturenames and item.callspec.params["device"] == "cuda":
            item.add_marker(pytest.mark.cuda)
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="there is no GPU"))


@pytest.fixture
def log(caplog, monkeypatch):
    """``caplog`` with what this package logs, which its logger keeps from others."""
    setup_logger(name="ptq_det")  # a first call later would undo the next line
    monkeypatch.setattr(logging.getLogger("ptq_det"), "propagate", True)
    caplog.set_level(logging.INFO, "ptq_det")
    return caplog


@pytest.fixture(scope="session")
def repo() -> Path:
    return REPO


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Folder of a small data set, registered as few_train and few_val."""
    folder = tmp_path_factory.mktemp("datasets") / "few"
    for split, count in (("train", 12), ("val", 4)):
        generate_shapes(folder, split, count)
        annotations = folder / "annotations" / f"{split}.json"
        register_coco_instances(f"few_{split}", {}, str(annotations), str(folder / split))
    return folder


@pytest.fixture
def cfg(pictures, tmp_path, request):
    """Config of a tiny ternary Mask R-CNN on the small data set, from random weights.

    Its ``MODEL.DEVICE`` is that of the fixture ``device`` where a test has it.
    """
    cfg = tiny_cfg(tmp_path)
    if "device" in request.fixturenames:
        cfg.MODEL.DEVICE = request.getfixturevalue("device")
    return cfg


@pytest.fixture
def sized(cfg, monkeypatch):
    """A config with few ternary layers, measured at few zeros, for a size to ask for."""
    monkeypatch.setattr(target, "SPARSITIES", (0.4, 0.6, 0.8, 0.95))
    monkeypatch.setattr(target, "BATCHES", 1)
    cfg.TERNARY.SKIP = ["backbone.bottom_up.*", "roi_heads.mask_head.deconv"]
    cfg.MODEL.FPN.OUT_CHANNELS = cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 48
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 48
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.TERNARY.PRUNE_END, cfg.TERNARY.FREEZE_START, cfg.SOLVER.MAX_ITER = 0.0, 0.5, 4
    cfg.TERNARY.SPARSITY_OVERRIDES = []
    return cfg


def trained(cfg, resume=False):
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def tiny_cfg(output_dir):
    cfg = get_cfg()
    add_ternary_config(cfg)
    cfg.merge_from_file(str(REPO / "configs/quick_schedules/shapes_mask_rcnn_ptq.yaml"))
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 8
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 16
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 16
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 1
    cfg.DATASETS.TRAIN = ("few_train",)
    cfg.DATASETS.TEST = ()
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.INPUT.MIN_SIZE_TRAIN = (64,)
    cfg.INPUT.MIN_SIZE_TEST = 64
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SOLVER.MAX_ITER = 10
    cfg.SOLVER.WARMUP_ITERS = 0
    cfg.SOLVER.CHECKPOINT_PERIOD = 1000
    cfg.TERNARY.REQUIRE_TRAINED = False
    cfg.OUTPUT_DIR = os.fspath(output_dir)
    return cfg
