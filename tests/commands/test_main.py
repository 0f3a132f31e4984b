import subprocess
import sys
from importlib import import_module

import pytest

from ptq_det.commands.__main__ import TOOLS, main
from tests.conftest import REPO


def test_every_tool_has_a_name_and_a_command():
    assert set(TOOLS) == {path.stem for path in (REPO / "tools").glob("*.py")}
    for name in TOOLS:
        assert callable(import_module(f"ptq_det.commands.{name}").main)


def test_the_first_word_names_the_tool(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ptq-det", "measure_size", "ptq_det://nothing.safetensors"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and "nothing.safetensors" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["ptq-det", "pack", "--help"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0 and capsys.readouterr().out.startswith("usage: ptq-det pack")


def test_a_word_that_is_no_tool_gets_the_names(monkeypatch, capsys):
    for words in ([], ["train"]):
        monkeypatch.setattr(sys, "argv", ["ptq-det", *words])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2 and "TOOL" in capsys.readouterr().err


def test_what_a_tool_needs_and_is_not_installed_is_named():
    code = "import sys; sys.modules['detectron2'] = None; sys.argv[1:] = ['pack', '--help']"
    code += "; from ptq_det.commands.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "pack needs detectron2, which is not installed" in done.stderr
