"""Every config in the repo builds the model it is named for, from any working directory."""

import pytest
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from ptq_det import add_ternary_config, ternarize
from ptq_det.data.weights import WEIGHTS_FOLDER
from ptq_det.settings import TernarySettings
from tests.conftest import REPO

CONFIGS = sorted(p for p in (REPO / "configs").rglob("*.yaml") if not p.name.startswith("Base"))


def read(path):
    cfg = get_cfg()
    add_ternary_config(cfg)
    cfg.merge_from_file(str(path))
    cfg.MODEL.DEVICE = "cpu"
    return cfg


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config_builds(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = read(path)
    settings = TernarySettings.from_cfg(cfg)
    kind = path.stem.split("_")[-1]
    assert settings.enabled == (kind != "float")
    if settings.enabled:
        assert settings.quantizer.lower() == kind
        record = ternarize(build_model(cfg), cfg)
        assert record.weights > 1.8e6 and not record.already


def test_the_main_config_fine_tunes_the_zoo_s_weights():
    cfg = read(REPO / "configs/mask_rcnn_R50_ptq.yaml")
    assert cfg.MODEL.WEIGHTS.startswith("detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN")
    record = ternarize(build_model(cfg), cfg)
    assert len(record.converted) == 58 and record.weights == 43_679_744


def test_the_demo_s_weights_come_with_the_package():
    cfg = read(REPO / "configs/quick_schedules/shapes_mask_rcnn_ptq.yaml")
    path = WEIGHTS_FOLDER / cfg.MODEL.WEIGHTS.removeprefix("ptq_det://")
    assert path.stat().st_size <= 3e6
