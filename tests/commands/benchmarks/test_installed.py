from importlib.metadata import PackageNotFoundError, distribution

import pytest

from ptq_det.commands.benchmarks.installed import installed_mib, with_requirements


def test_what_a_package_requires_is_counted_once():
    found = with_requirements(["onnxruntime", "numpy"])
    assert {"onnxruntime", "numpy", "protobuf"} <= found.keys()
    assert "torch" not in found and "pytest" not in found  # of extras at most
    numpy = sum(file.locate().stat().st_size for file in distribution("numpy").files)
    assert installed_mib(["numpy"]) == pytest.approx(numpy / 2**20, rel=0.01)
    assert installed_mib(["onnxruntime", "numpy"]) == installed_mib(["onnxruntime"])


def test_what_is_not_there_is_no_figure():
    with pytest.raises(PackageNotFoundError):
        installed_mib(["no-such-package"])
