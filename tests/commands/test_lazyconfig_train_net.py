"""The tool for lazy configs, in this process: one of its own takes seconds."""

import runpy
import sys

import pytest

from tests.conftest import REPO

CONFIG = str(REPO / "tests/training/lazy_config.py")


@pytest.fixture
def tool(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["lazyconfig_train_net", *args])
        runpy.run_path(str(REPO / "tools/lazyconfig_train_net.py"), run_name="__main__")

    return run


def test_train_and_evaluate_from_any_folder(tool, tmp_path, capfd):
    tool("--config-file", CONFIG, "train.max_iter=2")
    capfd.readouterr()
    assert (tmp_path / "out/config.yaml").is_file()
    tool(
        "--config-file", CONFIG, "--eval-only", "train.init_checkpoint=out/model_final.safetensors"
    )
    said = capfd.readouterr()
    assert "copypaste: Task: segm" in said.out + said.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give --config-file"),
        (["--config-file", CONFIG, "ternary.sparsity=2"], "TERNARY.SPARSITY is 2"),
        (["--config-file", CONFIG, "model.backbone.norm=Foo"], "the model cannot be built"),
        (["--config-file", CONFIG, "ternary.require_trained=True"], "were not loaded from a check"),
    ],
)
def test_a_user_s_mistake_is_one_line(args, message, tool, capsys):
    with pytest.raises(SystemExit) as end:
        tool(*args)
    assert end.value.code == 2
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert message in line
