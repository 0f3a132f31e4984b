import pytest
import torch
from detectron2.config import instantiate
from omegaconf import OmegaConf
from torch import nn

from ptq_det import TernaryTrainer
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.training import lazy_training, sync_norms
from ptq_det.training.sync_norms import with_shared_norms
from tests.lazy_models import narrow_new_baseline


@pytest.fixture
def gpus(cfg, monkeypatch, log):
    """The config of two processes on GPUs, and what is logged."""
    monkeypatch.setattr(sync_norms.comm, "get_world_size", lambda: 2)
    cfg.MODEL.DEVICE = "cuda"
    return cfg, log


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


@pytest.fixture
def lazy_cfg(gpus):
    """A lazy config of two processes on GPUs."""
    model = narrow_new_baseline()
    model.backbone.norm = "FrozenBN"
    model.roi_heads.box_head.conv_norm = "BN"
    model.roi_heads.mask_head.conv_norm = "${..box_head.conv_norm}"
    cfg = {"model": model, "train": {"device": "cuda"}, "ternary": {"sparsity": 0.7}}
    return OmegaConf.create(cfg, flags={"allow_objects": True})


def test_those_of_a_lazy_config_too(lazy_cfg, gpus):
    _, log = gpus
    shared = with_shared_norms(lazy_cfg).model
    assert shared.backbone.bottom_up.stem.norm == "SyncBN" and shared.backbone.norm == "FrozenBN"
    assert shared.backbone.bottom_up.stages[2].norm == "SyncBN"
    assert shared.roi_heads.box_head.conv_norm == shared.roi_heads.mask_head.conv_norm == "SyncBN"
    assert lazy_cfg.model.backbone.bottom_up.stem.norm == "BN"
    (said,) = (record.message for record in log.records if "SyncBN" in record.message)
    assert "model.backbone.bottom_up.stages.2.norm, " in said and "conv_norm" in said
    norms = [m for m in instantiate(shared).modules() if isinstance(m, nn.SyncBatchNorm)]
    assert len(norms) > 10
    lazy_cfg.train.device = "cpu"
    assert with_shared_norms(lazy_cfg) is lazy_cfg


def test_the_lazy_tool_builds_the_model_with_them(lazy_cfg, monkeypatch):
    class Built(BaseException):
        pass

    def build(cfg, settings):
        raise Built(cfg.model.backbone.bottom_up.stem.norm)

    monkeypatch.setattr(lazy_training, "_build", build)
    lazy_cfg.train.output_dir = "nowhere"
    with pytest.raises(Built, match="SyncBN"):
        lazy_training.train(lazy_cfg, resume=False)
