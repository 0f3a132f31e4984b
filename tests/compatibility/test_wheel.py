"""The wheel, built from the source archive and installed where there is no clone."""

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from ptq_det.kernels.library import kinds_here
from tests.conftest import REPO

pytest.importorskip("pip")
SOURCES = [
    *("ptq_det", "configs", "setup.py", "pyproject.toml"),
    *("MANIFEST.in", "README.md", "LICENSE"),
]
USE = """
import sys
sys.modules["pkg_resources"] = None  # as with setuptools 81 or newer
from pathlib import Path
import torch, ptq_det
from ptq_det.kernels import why_no_kernels
from ptq_det.training.config_file import find_config_file, read_config
print(Path(ptq_det.__file__).parent)
picture = torch.zeros(3, 128, 128)
picture[:, 40:90, 40:90] = 200
for engine in ("float", "int8", *(["sparse"] if why_no_kernels() is None else [])):
    model = ptq_det.load_packed("ptq_det://shapes_mask_rcnn_ptq.safetensors", "cpu", engine)
    (found,) = model([{"image": picture, "height": 128, "width": 128}])
    print(engine, bool((found["instances"].scores > 0.5).any()))
print(find_config_file("mask_rcnn_R50_ptq.yaml"))
print(read_config("configs/small_data/mask_rcnn_R50_224_ptq.yaml", []).MODEL.RESNETS.DEPTH)
from ptq_det.training.lazy_config_file import read_lazy_config
for name in ("mask_rcnn_R_50_FPN", "mask_rcnn_vitdet_b"):
    cfg = read_lazy_config(f"lazy/{name}_ptq.py", ["ternary.sparsity=0.6"])
    print(cfg.model._target_.__name__, cfg.ternary.sparsity)
"""


def run(*command, cwd, **environment):
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PTQ_DET_PLUGINS")}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd, env={**kept, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def wheel(source, folder, **environment) -> Path:
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder]
    done = run(sys.executable, "-m", "pip", "wheel", *options, source, cwd=folder, **environment)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The source archive, of a copy: building leaves files behind."""
    clone = tmp_path_factory.mktemp("clone")
    for name in SOURCES:
        if (REPO / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.so")
            shutil.copytree(REPO / name, clone / name, ignore=ignored)
        else:
            shutil.copy(REPO / name, clone / name)
    done = run(sys.executable, "setup.py", "-q", "sdist", cwd=clone)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = (clone / "dist").glob("*.tar.gz")
    return file


@pytest.fixture(scope="module")
def built(archive, tmp_path_factory) -> Path:
    return wheel(archive, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The folder of programs of an environment that has the wheel, and all else from this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env/bin/python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", code, cwd=folder).stdout.strip())
    shared = [path for path in sys.path if Path(path).is_dir() and Path(path).resolve() != REPO]
    (packages / "shared.pth").write_text("\n".join(shared))
    options = ["--python", python, "install", "--no-deps", "--no-index"]
    done = run(sys.executable, "-m", "pip", *options, built, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return python.parent


def test_it_predicts_and_finds_configs_from_anywhere(installed, tmp_path):
    done = run(installed / "python", "-W", "ignore", "-c", USE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    package, *engines, config, depth, lazy, lazy_too = done.stdout.split("\n")[:-1]
    assert Path(package).is_relative_to(installed.parent)
    assert engines[:2] == ["float True", "int8 True"] and set(engines[2:]) <= {"sparse True"}
    assert config == f"{package}/configs/mask_rcnn_R50_ptq.yaml" and depth == "50"
    assert lazy == lazy_too == "GeneralizedRCNN 0.6"


def test_its_tools_run_by_name_and_as_modules(installed, tmp_path):
    file = "ptq_det://shapes_mask_rcnn_ptq.safetensors"
    done = run(installed / "ptq-det", "measure_size", file, cwd=tmp_path)
    assert done.returncode == 0 and "engine float: may be named" in done.stdout, done.stderr
    words = ["--config-file", "mask_rcnn_R50_ptq.yaml", "DATASETS.TRAIN", "('nowhere',)"]
    tool = [installed / "python", "-m", "ptq_det.commands.train_net"]
    done = run(*tool, *words, cwd=tmp_path)
    assert done.returncode == 2 and "'nowhere' is not registered" in done.stderr


def kind_and_kernels(file: Path):
    """For what Pythons and machines a wheel is, and whether it has kernels."""
    names = zipfile.ZipFile(file).namelist()
    return "-".join(file.stem.split("-")[2:]), any(name.endswith(".so") for name in names)


def test_without_a_compiler_it_is_for_all_machines(archive, tmp_path):
    file = wheel(archive, tmp_path, CC="false", CXX="false")
    assert kind_and_kernels(file) == ("py3-none-any", False)


@pytest.mark.skipif(not (shutil.which("c++") and kinds_here()), reason="no compiler or kernels")
def test_with_a_compiler_it_has_the_kernels(built):
    kind, kernels = kind_and_kernels(built)
    assert kernels and kind.startswith("py3-none-") and kind != "py3-none-any"
