import pytest
import torch

from ptq_det.inference import Int8Engine
from ptq_det.packing.architecture import Architecture
from ptq_det.packing.packed_model import PackedModel


@pytest.fixture
def packed(file):
    return PackedModel.read(file)


def test_a_calibrated_detector_has_no_reason(packed):
    assert Int8Engine().why_not(packed, None) is None
    assert Int8Engine().why_not(packed, torch.device("cpu")) is None
    assert Int8Engine().about().startswith("by oneDNN")


def test_what_file_and_device_tell(packed, monkeypatch):
    assert "on a CPU, not on cuda:1" in Int8Engine().why_not(packed, "cuda:1")
    ranges, packed.ranges = packed.ranges, {}
    assert "tools/pack.py FILE --calibrate DATASET" in Int8Engine().why_not(packed, "cpu")
    packed.ranges = ranges
    packed.layers["roi_heads.box_head.fc2"].activation_bits = 4
    assert "bits of their own" in Int8Engine().why_not(packed, "cpu")
    packed.architecture = Architecture("torchvision", "resnet18", 10)
    assert Int8Engine().why_not(packed, "cpu") == "only detectors run on integers"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert Int8Engine().why_not(packed, "cpu") == "this CPU has no AVX2"
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert Int8Engine().why_not(packed, "cpu") == "PyTorch has no oneDNN here"
