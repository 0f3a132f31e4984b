import pytest

from ptq_det.inference import SparseEngine
from ptq_det.inference.sparse import engine
from ptq_det.kernels import Kernels, why_no_kernels
from ptq_det.packing.architecture import Architecture
from ptq_det.packing.packed_model import PackedModel

HERE = why_no_kernels() is None


@pytest.mark.skipif(not HERE, reason=str(why_no_kernels()))
def test_a_calibrated_detector_has_no_reason(file):
    packed = PackedModel.read(file)
    assert SparseEngine().why_not(packed, None) is None
    assert SparseEngine().about() == f"by kernels for {Kernels.here().kind}"


def test_what_file_device_and_installation_tell(file, monkeypatch):
    packed = PackedModel.read(file)
    assert "on a CPU, not on cuda:1" in SparseEngine().why_not(packed, "cuda:1")
    monkeypatch.setattr(engine, "why_no_kernels", lambda: "it was not built")
    assert SparseEngine().why_not(packed, "cpu") == "it was not built"
    monkeypatch.setattr(engine, "why_no_kernels", lambda: None)
    ranges, packed.ranges = packed.ranges, {}
    assert "tools/pack.py FILE --calibrate DATASET" in SparseEngine().why_not(packed, "cpu")
    packed.ranges = ranges
    packed.layers["roi_heads.box_head.fc2"].activation_bits = 4
    assert "bits of their own" in SparseEngine().why_not(packed, "cpu")
    packed.architecture = Architecture("torchvision", "resnet18", 10)
    assert SparseEngine().why_not(packed, "cpu") == "only detectors run on its kernels"
