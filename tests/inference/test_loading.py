import pytest
import torch

from ptq_det import load_packed
from ptq_det.errors import EngineError, InputError
from ptq_det.inference.sparse import engine
from ptq_det.packing.packed_model import PackedModel
from tests.inference.conftest import PICTURE


def test_one_line_says_what_runs(file, said):
    load_packed(file, "cpu", engine="int8")
    assert [message[:23] for message in said] == ["Engine: int8, by oneDNN"]
    said.clear()
    load_packed(file, "cpu", engine="float")
    assert said == ["Engine: float"]


def test_without_a_name_float_runs_and_the_log_says_why(file, said, monkeypatch):
    monkeypatch.setattr(engine, "why_no_kernels", lambda: None)
    load_packed(file, "cpu")
    assert said == ["Engine: float, as none was named; int8 may be named; sparse may be named"]
    said.clear()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    model = load_packed(file, "cpu")
    assert said[0].startswith("Engine: float, as none was named; int8 cannot: this CPU has no AVX2")
    assert model([PICTURE])[0]["instances"].image_size == (96, 80)


def test_an_engine_that_is_named_runs_or_says_why_it_cannot(file, said, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    with pytest.raises(EngineError, match=r"int8 cannot run .*m\.safetensors: this CPU"):
        load_packed(file, engine="int8")
    with pytest.raises(EngineError, match="it runs on a CPU, not on cuda"):
        load_packed(file, "cuda", engine="int8")
    assert not said


def test_a_file_without_ranges_is_refused(file, tmp_path):
    packed = PackedModel.read(file)
    packed.ranges = {}
    packed.write(tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match=r"not calibrated.*--calibrate"):
        load_packed(tmp_path / "bare.safetensors", engine="int8")
    with pytest.raises(InputError, match="there are float, int8"):
        load_packed(file, engine="tpu")
