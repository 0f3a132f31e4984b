"""Mistakes that tools tell in one line, all in this process: a process for each takes seconds."""

import runpy
import sys
from importlib import import_module

import pytest
import torch

from tests.conftest import REPO

QUICK = str(REPO / "configs/quick_schedules/shapes_mask_rcnn_ptq.yaml")
COMPARE = ["compare", "--config-file", QUICK]


@pytest.fixture
def stderr_of(tmp_path, monkeypatch, capsys):
    """Runs a tool, which has to end with status 2, in a folder with some files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.html").write_text("<html></html>")
    (tmp_path / "cut.pth").write_bytes(b"other weights")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    (tmp_path / "runs.yaml").write_text("a: [TERNARY.ENABLED, False]")
    (tmp_path / "escape.yaml").write_text("../escape: [TERNARY.ENABLED, False]")

    def run(name, *args):
        command = import_module(f"ptq_det.commands.{name}")
        monkeypatch.setattr(command, "setup_logger", lambda *args, **options: None, raising=False)
        monkeypatch.setattr(sys, "argv", [name, *args])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(REPO / f"tools/{name}.py"), run_name="__main__")
        assert end.value.code == 2
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["make_demo_weights", "page.html"], "page.html' cannot be read: it is a web page"),
        (["make_demo_weights", "none.pth"], "none.pth': the file holds no weights by name"),
        (["measure_size", "--torchvision", "resnet18", "page.html"], "it is a web page"),
        (["demo", "--output", "/etc/passwd"], "/etc/passwd"),
        (["pack", "--config-file", QUICK, "--output", "no/o"], "there is no folder"),
        (
            ["pack", "--config-file", QUICK, "--output", "o", "MODEL.FPN.NORM", "Foo"],
            "the model ca",
        ),
        ([*COMPARE, "--runs", "runs.yaml", "--output", "/etc/passwd"], "/etc/passwd"),
        ([*COMPARE, "--runs", "escape.yaml", "--output", "o"], "'../escape', but a name is that"),
        ([*COMPARE, "--runs", "none.pth", "--output", "o"], "none.pth' cannot be read"),
        (["benchmark", "train", "MODEL.FPN.NORM", "Foo"], "the model cannot be built"),
        (["benchmark", "size", "MODEL.WEIGHTS", "no.pth"], "no.pth"),
        (["benchmark", "size", "MODEL.WEIGHTS", "cut.pth"], "cut.pth' cannot be read"),
    ],
)
def test_a_user_s_mistake_is_one_line(args, message, stderr_of):
    error = stderr_of(*args)
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert message in line


@pytest.mark.parametrize(
    "args",
    [
        ["benchmark", "train", "--rounds", "0"],
        ["benchmark", "train", "--batch", "0"],
        ["benchmark", "train", "--size", "0", "64"],
        ["benchmark", "size", "--rounds", "0"],
        ["benchmark", "inference", "--pictures", "0"],
        ["benchmark", "inference", "--rounds", "0"],
        ["benchmark", "inference", "--size", "0", "0"],
        ["benchmark", "difference", "--samples", "0"],
        ["benchmark", "fuzz", "--workers", "0"],
        ["benchmark", "fuzz", "--files", "-1"],
        ["demo", "--min-size", "0"],
    ],
)
def test_numbers_that_must_be_above_0(args, stderr_of):
    assert "is no whole number above 0" in stderr_of(*args)


@pytest.mark.parametrize(
    "args",
    [["train_net"], ["pack"], ["measure_size"], ["compare"], ["demo"], ["benchmark", "train"]],
)
def test_a_module_that_is_not_there_is_said_before_anything_else(args, stderr_of):
    error = stderr_of(*args, "--import", "no_such_module")
    assert "argument --import: there is no module 'no_such_module'" in error


@pytest.mark.parametrize("text", ["nan", "-1", "2", "a"])
def test_a_threshold_is_a_score(text, stderr_of):
    assert "--threshold" in stderr_of("demo", "--threshold", text)
