import logging

import pytest
import torch
from torch import nn

from ptq_det import TernaryTrainer
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.training import sync_norms
from ptq_det.training.sync_norms import with_shared_norms


@pytest.fixture
def gpus(cfg, monkeypatch, caplog):
    """The config of two processes on GPUs, and what is logged."""
    monkeypatch.setattr(sync_norms.comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(logging.getLogger("ptq_det"), "propagate", True)
    caplog.set_level(logging.INFO, "ptq_det")
    cfg.MODEL.DEVICE = "cuda"
    return cfg, caplog


def test_norms_are_shared_by_several_gpus_and_it_is_said(gpus):
    cfg, log = gpus
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.FPN.NORM = "BN", "FrozenBN"
    cfg.MODEL.ROI_BOX_HEAD.NORM, cfg.MODEL.ROI_MASK_HEAD.NORM = "BN", "GN"
    cfg.freeze()
    shared = with_shared_norms(cfg)
    found = (shared.MODEL.RESNETS, shared.MODEL.FPN)
    found += (shared.MODEL.ROI_BOX_HEAD, shared.MODEL.ROI_MASK_HEAD)
    assert [node.NORM for node in found] == ["SyncBN", "FrozenBN", "SyncBN", "GN"]
    assert cfg.MODEL.RESNETS.NORM == "BN" and shared.is_frozen()
    (said,) = (record.message for record in log.records if "SyncBN" in record.message)
    assert said.startswith("2 GPUs share") and "MODEL.RESNETS.NORM" in said
    assert "MODEL.ROI_BOX_HEAD.NORM" in said and "FPN" not in said


def test_elsewhere_norms_stay(gpus, monkeypatch):
    cfg, log = gpus
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.FPN.NORM = "FrozenBN"
    assert with_shared_norms(cfg) is cfg
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.DEVICE = "cpu"  # where PyTorch has no SyncBN
    assert with_shared_norms(cfg) is cfg
    cfg.MODEL.DEVICE = "cuda"
    monkeypatch.setattr(sync_norms.comm, "get_world_size", lambda: 1)
    assert with_shared_norms(cfg) is cfg
    assert "SyncBN" not in log.text


def test_the_trainer_builds_the_model_with_them(gpus, monkeypatch):
    """Up to the model, which is built on the CPU: there are no two GPUs."""
    cfg, _ = gpus
    cfg.MODEL.RESNETS.NORM = cfg.MODEL.FPN.NORM = "BN"
    cfg.DATALOADER.NUM_WORKERS = 0

    class Built(BaseException):
        """Of no kind that the trainer takes for a mistake in the config."""

    def build(cfg):
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = "cpu"
        raise Built(build_float_model(cfg))

    monkeypatch.setattr(TernaryTrainer, "build_model", staticmethod(build))
    with pytest.raises(Built) as found:
        TernaryTrainer(cfg)
    norms = [m for m in found.value.args[0].modules() if isinstance(m, nn.SyncBatchNorm)]
    assert len(norms) > 50
    assert torch.isfinite(norms[0].eval()(torch.randn(2, norms[0].num_features, 3, 3))).all()
