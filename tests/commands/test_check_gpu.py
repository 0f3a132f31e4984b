import json
import sys

import pytest
import torch

from ptq_det.commands import check_gpu as command
from ptq_det.commands import gpu_trainings
from ptq_det.commands.check_gpu import _failed, check_gpu, compare_codes
from ptq_det.errors import InputError
from ptq_det.quantizers import QUANTIZER_REGISTRY


@pytest.fixture
def narrow(monkeypatch, repo):
    """Two pictures to train on and to evaluate, and a narrow config whose steps are measured."""
    monkeypatch.setattr(gpu_trainings, "_SPLITS", {"train": 4, "val": 2})
    return str(repo / "configs/quick_schedules/shapes_mask_rcnn_ptq.yaml")


def test_it_ends_with_tables_and_json(narrow, device, monkeypatch, capsys):
    words = ["--device", device, "--config-file", narrow, "--size", "64", "64", "--iterations", "2"]
    monkeypatch.setattr(sys, "argv", ["check_gpu.py", *words, "--rounds", "1", "--batch", "1"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    printed = capsys.readouterr().out
    result = json.loads(printed.splitlines()[-1])
    assert result["failed"] == [] and ended.value.code == 0 and result["device"] == device
    assert "Checks: all as it should be." in printed
    assert {name.split()[0] for name in result["codes"]} == {n for n, _ in QUANTIZER_REGISTRY}
    assert all(each["weights"] > 300_000 for each in result["codes"].values())
    assert result["fine_tuning"].keys() == {"float", "ternary"}
    assert result["resumed"]["start"] == 1 and result["resumed"]["differs"] <= 0.05
    assert device == "cuda" or result["resumed"]["differs"] == 0.0
    assert result["processes"]["codes"] == 0 and result["processes"]["last_loss"] > 0
    assert device == "cuda" or result["processes"]["backend"] == "gloo"
    assert "| ternary, two processes (" in printed and "| ternary, from iteration 1 on" in printed
    assert result["packing"]["codes"] == 0 and result["packing"]["file"] < 1e-3
    kinds = [(each["precision"], each["weights"]) for each in result["steps"]]
    weights = ["float", "prune", "ternary", "frozen"]
    assert kinds == [(p, w) for p in ("float32", "AMP") for w in weights]
    assert all(each["waits"] > 0 and each["seconds"] > 0 for each in result["steps"])
    assert all((each["mib"] is None) == (device == "cpu") for each in result["steps"])

    result["codes"]["TWN False"]["differ"] = result["codes"]["TWN False"]["weights"]
    result["packing"] = {"codes": 3, "file": float("nan"), "device": 0.0}
    result["fine_tuning"]["float"]["last_loss"] = float("inf")
    result["steps"][2]["waits"] += 1
    result["resumed"]["differs"], result["processes"]["codes"] = 0.1, 7
    result["resumed"]["last_loss"] = float("nan")
    said = " ".join(_failed(result))
    for part in ("codes of TWN False differ", "3 codes differ", "something else", "float32: the"):
        assert part in said
    for part in ("other weights: 0.1", "7 codes differ between two processes", "has no numbers"):
        assert part in said
    assert "the float fine-tuning" in said and "AMP: " not in said


def test_codes_that_differ_are_counted(monkeypatch):
    weight = torch.randn(20, 30)
    codes = compare_codes([weight], "cpu")
    assert not any(each["differ"] for each in codes.values())
    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "to", lambda x, where: -x if where == "cpu" else to(x, where))
    assert compare_codes([weight], "cpu")["TWN False"]["differ"] > 300


def test_without_a_gpu_it_says_so(narrow, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="finds no GPU here; --device cpu"):
        check_gpu("cuda", narrow, (64, 64), 1, 1, 1)
