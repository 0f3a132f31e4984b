import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from ptq_det.commands.benchmarks import benchmark_inference
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


@pytest.fixture
def broken(tmp_path):
    """Data sets of which one is no JSON, and the other has no pictures."""
    empty = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    texts = {"broken_few": '{"images": [', "empty_few": json.dumps(empty)}
    for name, text in texts.items():
        (tmp_path / f"{name}.json").write_text(text)
        register_coco_instances(name, {}, str(tmp_path / f"{name}.json"), str(tmp_path))
    yield
    for name in texts:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [("broken_few", r"cannot be read \(JSONDecodeError.*mend"), ("empty_few", "has no pictures")],
)
def test_a_data_set_that_cannot_be_read_is_said_first(name, message, broken, cfg, tmp_path):
    for use in (
        lambda: pack(["no.safetensors"], str(tmp_path / "o"), name),
        lambda: benchmark_inference("no.safetensors", name, [(64, 64)], 1, 1, False, []),
    ):
        with pytest.raises(InputError, match=message):
            use()


def test_a_training_set_that_tells_no_names_is_said(broken, cfg, tmp_path):
    cfg.DATASETS.TRAIN = ("broken_few",)
    (tmp_path / "c.yaml").write_text(cfg.dump())
    words = [str(tmp_path / "o.safetensors"), None, str(tmp_path / "c.yaml")]
    with pytest.raises(InputError, match=r"'broken_few', which tells the names .*JSONDecodeError"):
        pack([], *words)
    assert pack(["DATASETS.TRAIN", "()"], *words).verified


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (["MODEL.FPN.NORM", "Foo"], "the model cannot be built"),
        (["MODEL.BACKBONE.NAME", "Foo"], "BACKBONE.NAME is 'Foo'"),
    ],
)
def test_a_model_that_cannot_be_built_is_said(setting, message, cfg, tmp_path):
    (tmp_path / "c.yaml").write_text(cfg.dump())
    with pytest.raises(InputError, match=message):
        pack(setting, str(tmp_path / "o"), None, str(tmp_path / "c.yaml"))


def test_where_nothing_can_be_written_is_said_first(tmp_path):
    (tmp_path / "file").write_text("")
    for target, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "no/o", "there is no folder"),
        (tmp_path / "file/o", "there is no folder"),
    ):
        with pytest.raises(InputError, match=message):
            pack(["no.safetensors"], str(target))
