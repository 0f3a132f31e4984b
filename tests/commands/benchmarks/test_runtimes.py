import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch

from ptq_det.commands.benchmarks.runtimes import runtimes
from ptq_det.export.predictor import give_back_memory
from ptq_det.inference.evaluation import build_for_evaluation
from ptq_det.packing.packed_model import PackedModel
from tests.conftest import REPO
from tests.inference.conftest import packed_file


@pytest.fixture
def models(cfg, tmp_path):
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.1
    file = packed_file(cfg, tmp_path / "m.safetensors")
    pictures = [np.random.default_rng(0).integers(0, 256, (96, 80, 3), np.uint8)] * 3
    return file, cfg, *runtimes(file, pictures, str(tmp_path))


def test_rows_are_models_of_detectron2(models):
    file, cfg, rows, left_out = models
    assert {"onnxruntime float", "onnxruntime int8"} <= rows.keys()
    if importlib.util.find_spec("openvino") is None:
        assert "openvino" in left_out and not any("openvino" in name for name in rows)
    else:
        assert {"openvino float", "openvino int8"} <= rows.keys()
    sample = {"image": torch.randint(0, 256, (3, 96, 80)).float(), "height": 192, "width": 160}
    wanted = build_for_evaluation(PackedModel.read(file), cfg, "float")([sample])[0]["instances"]
    for name, model in rows.items():
        found = model([sample])[0]["instances"]
        assert found.image_size == (192, 160)
        assert found.pred_masks.shape[1:] == (192, 160)
        if "float" in name:
            assert len(found) == len(wanted) > 0
            apart = found.pred_boxes.tensor[:, None] - wanted.pred_boxes.tensor
            assert float((apart.abs().amax(2).amin(1) < 0.02).float().mean()) > 0.8


def test_memory_of_a_process_of_its_own(models, tmp_path):
    _, _, rows, _ = models
    np.save(tmp_path / "p.npy", np.zeros((96, 80, 3), np.uint8))
    script = REPO / "ptq_det/commands/benchmarks/peak_runtime.py"
    words = ["onnxruntime", rows["onnxruntime int8"].file, str(tmp_path / "p.npy"), "1"]
    done = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, check=True
    )
    assert 20 < float(done.stdout) < 200  # MiB; with PyTorch it would be several times that


def test_without_a_calibration_floats_alone(cfg, tmp_path):
    file = packed_file(cfg, tmp_path / "m.safetensors")
    content = PackedModel.read(file)
    content.ranges = {}
    content.write(file)
    picture = np.zeros((96, 80, 3), np.uint8)
    rows, left_out = runtimes(file, [picture], str(tmp_path))
    assert "onnxruntime int8" not in rows and "not calibrated" in left_out["onnx int8"]


def test_memory_is_given_back_where_it_can_be(monkeypatch):
    give_back_memory()
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    give_back_memory()
