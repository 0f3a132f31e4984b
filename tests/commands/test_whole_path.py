import json

import cv2
import pytest

from ptq_det.commands.whole_path import run_demo
from ptq_det.errors import InputError


def test_the_demo_writes_summary_and_picture(pictures, repo, tmp_path, capsys):
    config = repo / "configs/quick_schedules/shapes_mask_rcnn_ptq.yaml"
    overrides = ["DATASETS.TRAIN", "('few_train',)", "DATASETS.TEST", "('few_val',)"]
    overrides += [
        "SOLVER.MAX_ITER",
        "3",
        "SOLVER.IMS_PER_BATCH",
        "2",
        "DATALOADER.NUM_WORKERS",
        "0",
    ]
    run_demo(str(config), str(tmp_path / "demo"), overrides)
    summary = json.loads((tmp_path / "demo/summary.json").read_text())
    assert summary["ternary"]["sparsity"] == pytest.approx(0.8, abs=1e-3)
    assert {"bbox_AP", "segm_AP"} <= set(summary["float"]) & set(summary["ternary"])
    assert summary["float"]["segm_AP"] > 20  # it starts from trained weights
    packed = summary["packed"]
    assert packed["segm_AP"] == pytest.approx(summary["ternary"]["segm_AP"], abs=0.05)
    size = (tmp_path / "demo/model_final.safetensors").stat().st_size
    assert packed["bytes"] == size and packed["float_bytes"] > 20 * size
    assert summary["seconds"] > summary["training_seconds"] > 0
    picture = cv2.imread(str(tmp_path / "demo/predictions.png"))
    assert picture.shape == (2 * 256, 28 + 4 * 256, 3)
    printed = capsys.readouterr().out
    assert "| packed" in printed and "80.0 %" in printed


def test_the_demo_of_a_model_without_masks(cfg, tmp_path, capsys):
    cfg.DATASETS.TEST, cfg.MODEL.MASK_ON, cfg.SOLVER.MAX_ITER = ("few_val",), False, 1
    (tmp_path / "c.yaml").write_text(cfg.dump())
    summary = run_demo(str(tmp_path / "c.yaml"), str(tmp_path / "demo"))
    assert "bbox_AP" in summary["packed"] and "segm_AP" not in summary["packed"]
    assert "mask AP" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (["TERNARY.ENABLED", "False"], "TERNARY.ENABLED is False"),
        (["DATASETS.TEST", "()"], "DATASETS.TEST is empty"),
        (["TERNARY.REQUIRE_TRAINED", "True"], "were not loaded from MODEL.WEIGHTS"),
    ],
)
def test_what_the_demo_cannot_do_is_said_first(setting, message, cfg, tmp_path):
    cfg.DATASETS.TEST = ("few_val",)
    (tmp_path / "c.yaml").write_text(cfg.dump())
    with pytest.raises(InputError, match=message):
        run_demo(str(tmp_path / "c.yaml"), str(tmp_path / "demo"), setting)
