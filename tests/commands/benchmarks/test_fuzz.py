import pytest
import torch
from torch import nn

from ptq_det.commands.benchmarks.fuzz import _run, benchmark_fuzz
from ptq_det.commands.benchmarks.given import Given
from tests.packing.test_old_versions import FILES


@pytest.fixture
def honest():
    return str(FILES / "version_2.safetensors")


def test_none_does_harm(honest, capsys):
    result = benchmark_fuzz(honest, files=60, workers=1, seed=7)
    assert result["loaded"] + result["refused"] == 60 and result["refused"] > 20
    assert "worst refusal" in capsys.readouterr().out


def test_files_of_modules_are_forged_by_turns(monkeypatch, honest):
    monkeypatch.setattr("ptq_det.commands.benchmarks.fuzz._PACKAGED", honest)
    result = benchmark_fuzz(None, files=80, workers=1, seed=7)
    assert result["loaded"] + result["refused"] == 80 and result["loaded"] > 3


def test_a_model_that_the_reader_gives_runs():
    model = Given()
    assert _run(model.eval()) == "loaded"
    model.steps = model.steps.float()
    assert _run(model).startswith("at a picture IndexError")


def fails_at_pictures(*args):
    raise AssertionError("boxes of another kind")


def test_models_that_fail_at_their_first_picture_are_found():
    with torch.device("meta"):
        model = nn.Linear(1, 1)
    assert _run(model) == "loaded"  # which is no detector
    model.pixel_mean, model.forward = torch.zeros(3, 1, 1), fails_at_pictures
    assert _run(model) == "at a picture AssertionError: boxes of another kind"


@pytest.mark.parametrize("bound", ["_SECONDS", "_MEMORY"])
def test_harm_is_found(bound, honest, monkeypatch):
    monkeypatch.setattr(f"ptq_det.commands.benchmarks.fuzz.{bound}", -1.0)
    with pytest.raises(RuntimeError, match="faults"):
        benchmark_fuzz(honest, files=10, workers=1, seed=7)
