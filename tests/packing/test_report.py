import json

import cv2
import numpy as np
import pytest

from ptq_det.packing import report as report_module
from ptq_det.packing.packed_model import PackedModel
from ptq_det.packing.report import draw_sizes, measure_size


@pytest.fixture
def packed(model, cfg):
    return PackedModel.of(model, cfg)


def test_the_bytes_add_up(packed, tmp_path):
    path = tmp_path / "m.safetensors"
    report = measure_size(packed, path)
    assert report.verified and report.file_bytes == path.stat().st_size
    assert sum(part["file_bytes"] for part in report.parts.values()) == report.file_bytes
    assert report.float_bytes == packed.float_bytes
    assert sum(layer.float_bytes for layer in report.layers) == packed.float_bytes
    assert report.ratio == report.float_bytes / report.file_bytes
    assert report.sparsity == pytest.approx(0.8, abs=1e-3)
    assert list(report.parts) == [
        "backbone", "FPN", "RPN", "box head", "mask head", "predictors", "container"
    ]  # fmt: skip


def test_a_layer_by_hand(packed):
    report = measure_size(packed)
    layer = next(layer for layer in report.layers if layer.name == "roi_heads.box_head.fc1")
    assert layer.parameters == 16 * 16 * 49
    assert layer.float_bytes == 4 * (16 * 16 * 49 + 16)
    assert layer.two_bit_bytes == 16 * 16 * 49 / 4
    assert layer.five_trit_bytes == 2509  # 12544 / 5, rounded up
    assert layer.sparsity == pytest.approx(0.8, abs=1e-3)
    assert layer.iid_entropy_bytes == pytest.approx(0.9219 * 12544 / 8, rel=0.01)
    assert layer.coded_bytes == len(packed.layers[layer.name].to_tensors()["codes"])
    assert layer.file_bytes == layer.coded_bytes + 2 * 16 + 2 * 16
    assert layer.bits_per_weight == 8 * layer.coded_bytes / layer.parameters


def test_a_file_with_other_weights_is_not_verified(packed, monkeypatch):
    read = PackedModel.read

    def tampered(path):
        other = read(path)
        other.layers["roi_heads.box_head.fc1"].values[0, 0, 0, 0] ^= 1
        return other

    monkeypatch.setattr(report_module.PackedModel, "read", tampered)
    report = measure_size(packed)
    assert not report.verified and "DOES NOT HOLD" in report.summary()
    wrong = [layer.name for layer in report.layers if not layer.verified]
    assert wrong == ["roi_heads.box_head.fc1"]


def test_text_json_and_picture(packed, tmp_path):
    report = measure_size(packed, one_shot=True)
    line = report.summary()
    assert f"-> {report.file_bytes / 2**20:.2f} MiB ({report.ratio:.1f}x)" in line
    assert line.endswith("file verified")
    assert "roi_heads.box_head.fc1" in report.table() and "mask head" in report.table()
    fields = json.loads(report.to_json())
    assert fields["one_shot"] is True and fields["ratio"] == report.ratio
    keys = {"float_bytes", "file_bytes", "sparsity", "bits_per_weight"}
    keys |= {"iid_entropy_bytes", "coded_bytes"}
    keys |= {"verified", "ratio"}
    assert keys <= set(fields)
    assert all(keys | {"name"} <= set(layer) for layer in fields["layers"])
    draw_sizes(report, tmp_path / "sizes.png")
    assert np.ptp(cv2.imread(str(tmp_path / "sizes.png"))) > 100
