"""A packed, calibrated file of a tiny Mask R-CNN and its graphs, made once."""

import shutil

import pytest
import torch

from ptq_det.export.exporting import export_onnx
from tests.conftest import tiny_cfg
from tests.inference.conftest import packed_file


@pytest.fixture(scope="session")
def exported(tmp_path_factory, pictures):
    """Folder of ``m.safetensors``, ``m.graph.onnx`` (int8, without weights) and ``float.onnx``."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    file = packed_file(tiny_cfg(folder), folder / "m.safetensors")
    export_onnx(file, folder / "m.graph.onnx", int8=True, weightless=True)
    export_onnx(file, folder / "float.onnx")
    return folder


@pytest.fixture
def file(exported, tmp_path):
    return str(shutil.copy(exported / "m.safetensors", tmp_path))


@pytest.fixture
def graph(exported, tmp_path):
    return shutil.copy(exported / "m.graph.onnx", tmp_path) and tmp_path / "m.graph.onnx"


@pytest.fixture
def float_model(exported):
    return exported / "float.onnx"
