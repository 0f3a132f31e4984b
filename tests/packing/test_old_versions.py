"""Files as earlier versions of ptq_det wrote them: later ones read them, to the same weights.

``files/version_N.safetensors`` was written by the code that wrote version N, from a tiny Mask R-CNN
with random weights; beside it are the digests of its weights and figures of its features then. They
are never written anew.
"""

import json
from pathlib import Path

import pytest

from ptq_det import load_packed, packed_config
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing.container import _READABLE, Container
from ptq_det.packing.packed_model import PackedModel
from tests.packing.fixtures import digests_of, features_of, write_fixture

FILES = Path(__file__).parent / "files"


def assert_as_then(path):
    expected = json.loads(path.with_suffix(".json").read_text())
    packed = PackedModel.read(path)
    assert digests_of(packed) == expected["weights"]
    assert packed.classes == expected["classes"] and len(packed.ranges) == expected["ranges"]
    found = features_of(load_packed(path, "cpu"))
    for name, figures in expected["features"].items():
        assert found[name] == pytest.approx(figures, abs=1e-3), name
    assert packed_config(path).MODEL.FPN.OUT_CHANNELS == 16


@pytest.mark.parametrize("version", _READABLE)
def test_a_file_gives_what_it_gave(version):
    path = FILES / f"version_{version}.safetensors"
    assert Container.read(path).version == version
    assert_as_then(path)


def test_a_fixture_of_the_present_version_can_be_written(tmp_path):
    assert_as_then(write_fixture(tmp_path))
    with pytest.raises(FileExistsError):
        write_fixture(tmp_path)


def test_builders_and_keys_of_an_old_config_do_not_matter(tmp_path):
    packed = PackedModel.read(FILES / "version_1.safetensors")
    assert "TRAIN_NORM" in packed.config  # a key that is gone
    packed.config = packed.config.replace("StandardRPNHead", "TernaryRPNHead")
    packed.config = packed.config.replace("NAME: StandardROIHeads", "NAME: TernaryStandardROIHeads")
    packed.config = packed.config.replace("QUANTIZER: PTQ", "QUANTIZER: NotRegisteredHere")
    assert packed.config.count("Ternary") == 2 and "NotRegisteredHere" in packed.config
    packed.write(tmp_path / "m.safetensors")
    load_packed(tmp_path / "m.safetensors", "cpu")
    build_float_model(packed_config(tmp_path / "m.safetensors"))


@pytest.mark.parametrize("version", ["1", "2"])  # whose config is YAML
def test_names_of_a_test_set_with_other_classes_are_passed_over(version, tmp_path):
    content = Container.read(FILES / f"version_{version}.safetensors")
    content.metadata["classes"] = '["a"]'  # earlier releases wrote such
    content.write(tmp_path / "m.safetensors")
    assert PackedModel.read(tmp_path / "m.safetensors").classes == []
    assert PackedModel.read(tmp_path / "m.safetensors", weights=False).classes == []
