"""An environment without PyTorch, Detectron2 and a compiler, as on a device."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ptq_det.commands.benchmarks.installed import with_requirements
from tests.conftest import REPO
from tests.export.conftest import exported  # noqa: F401  (a fixture)

NEEDED = ["onnxruntime", "numpy", "pillow", "safetensors", "constriction"]
BUILDING = ["setuptools", "wheel"]


@pytest.fixture(scope="module")
def small_device(tmp_path_factory):
    """A fresh environment: what is needed by links to what is installed here, ours by pip."""
    folder = tmp_path_factory.mktemp("device")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    for each in with_requirements([*NEEDED, *BUILDING]).values():
        for name in {file.parts[0] for file in each.files} - {"..", "__pycache__"}:
            source = Path(each.locate_file(name))
            if source.exists() and not (packages / name).exists():
                os.symlink(source, packages / name)
    source = folder / "source"
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(REPO / "ptq_det", source / "ptq_det", ignore=ignored)
    for name in ("setup.py", "README.md"):
        shutil.copy(REPO / name, source)
    python = folder / "venv/bin/python"
    words = ["install", "-q", "--no-deps", "--no-build-isolation", "--no-index", source]
    # A compiler that fails stands for none.
    environ = os.environ | {"CC": "false", "CXX": "false", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, *words], check=True, env=environ
    )
    return python


def run(python, *words, **variables):
    return subprocess.run(
        [python, *map(str, words)],
        capture_output=True, text=True, cwd=Path(python).parent, env=os.environ | variables,
    )  # fmt: skip


def test_a_device_predicts_from_the_packed_file(small_device, exported, tmp_path):  # noqa: F811
    Image.new("RGB", (50, 40), "red").save(tmp_path / "a.png")
    words = [exported / "m.safetensors", tmp_path / "a.png", "--output", tmp_path / "found"]
    done = run(
        small_device, "-m", "ptq_det.commands.onnx_predict", *words, XDG_CACHE_HOME=str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert "1 drawings" in done.stdout
    assert isinstance(json.loads((tmp_path / "found/results.json").read_text()), list)
    assert (tmp_path / "found/00000_a.jpg").is_file()


def test_it_has_no_torch_and_says_what_to_install(small_device):
    assert run(small_device, "-c", "import torch").returncode == 1
    done = run(small_device, "-c", "import ptq_det; ptq_det.load_packed")
    assert "ptq_det.load_packed needs Detectron2" in done.stderr and "pip install" in done.stderr
    done = run(small_device, "-c", "from ptq_det.export import export_onnx")
    assert "export_onnx needs onnx, which is not installed: pip install" in done.stderr


def test_without_a_compiler_the_kernels_are_not_there_and_say_so(small_device):
    code = "from ptq_det.kernels import why_no_kernels as why; print(why())"
    done = run(small_device, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "not built" in done.stdout or "compiler" in done.stdout, done.stdout
