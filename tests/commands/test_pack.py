import pytest

from ptq_det.commands.pack import pack, split_words
from ptq_det.errors import InputError
from ptq_det.packing.packed_model import PackedModel
from tests.inference.conftest import packed_file


def test_words_are_a_file_and_keys_with_values():
    assert split_words(["m.pth", "A.B", "1"]) == ("m.pth", ["A.B", "1"])
    assert split_words(["A.B", "1"]) == (None, ["A.B", "1"])
    assert split_words([]) == (None, [])


def test_a_packed_file_is_calibrated(cfg, tmp_path):
    file = packed_file(cfg, tmp_path / "m.safetensors")
    before = PackedModel.read(file)
    before.ranges = {}
    before.write(file)
    output = str(tmp_path / "calibrated.safetensors")
    report = pack([file], output, "few_val")
    after = PackedModel.read(output)
    assert report.verified and not report.one_shot and after.ranges
    assert {n: layer.values.tobytes() for n, layer in after.layers.items()} == {
        n: layer.values.tobytes() for n, layer in before.layers.items()
    }


def test_a_data_set_that_is_not_there_is_said_first(tmp_path):
    with pytest.raises(InputError, match="'nowhere' is not registered"):
        pack([str(tmp_path / "no.safetensors")], str(tmp_path / "o"), "nowhere")
