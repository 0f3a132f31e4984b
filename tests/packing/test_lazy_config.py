"""What of a lazy config travels, and what a reader takes of a file's."""

import json
from functools import partial

import pytest
from detectron2.config import LazyCall
from detectron2.layers import ShapeSpec
from omegaconf import OmegaConf
from torch import nn

from ptq_det.errors import InputError
from ptq_det.packing import PackedFileError
from ptq_det.packing.lazy_config import lazy_text, read_lazy
from tests.lazy_models import narrow_new_baseline, narrow_vitdet


def travelling(**values):
    return json.loads(lazy_text(LazyCall(nn.Conv2d)(**values)))


def test_values_travel_as_data():
    found = travelling(
        numbers=(1, 2.5, True, None), name="BN", again="${.name}", shape=ShapeSpec(channels=3),
        layer=partial(nn.LayerNorm, eps=1e-6), kind=nn.GELU, other=lambda c: c, inf=float("inf"),
        waiting=OmegaConf.create({"_target_": "torch.nn.SiLU", "_partial_": True, "inplace": True}),
        large=1 << 40, drop_path_rate=0.1, nested=LazyCall(nn.Linear)(bias=False),
    )  # fmt: skip
    assert found == {
        "_target_": "torch.nn.Conv2d",
        "numbers": [1, 2.5, True, None],
        "name": "BN",
        "again": "BN",
        "shape": {
            "_target_": "detectron2.layers.ShapeSpec",
            **{"channels": 3, "height": None, "width": None, "stride": None},
        },
        "layer": {"_partial_": "torch.nn.LayerNorm", "eps": 1e-6},
        "waiting": {"_partial_": "torch.nn.SiLU", "inplace": True},
        "kind": "torch.nn.GELU",
        "other": "function",
        "inf": "inf",
        "large": str(1 << 40),
        "drop_path_rate": 0.1,
        "nested": {"_target_": "torch.nn.Linear", "bias": False},
    }


def test_a_class_may_have_a_name_like_a_file_s_ending():
    node = LazyCall(nn.Linear)(bias=True)
    node._target_ = "project.Model"
    text = lazy_text(node)
    assert read_lazy(text, "m") == {"_target_": "project.Model", "bias": True}


def test_no_path_travels():
    found = travelling(weights="a", folder="b", init="/home/me/x.pth", names=["res2", "https://x"])
    assert found == {"_target_": "torch.nn.Conv2d", "init": None, "names": ["res2", None]}


@pytest.mark.parametrize("make", [narrow_new_baseline, narrow_vitdet])
def test_the_text_of_a_whole_model_is_read_again_and_always_the_same(make):
    text = lazy_text(make())
    assert text == lazy_text(make())
    assert read_lazy(text, "m")["_target_"] == "detectron2.modeling.GeneralizedRCNN"
    assert lazy_text(None) == "{}"


def nested(depth):
    return [nested(depth - 1)] if depth else 1


@pytest.mark.parametrize("value", [[7] * 200_000, ["a"] * 30_000, nested(20)])
def test_a_config_that_is_too_much_for_a_file_is_left_out_and_that_is_said(value, caplog):
    assert lazy_text(LazyCall(nn.Conv2d)(values=value)) == "{}"
    (said,) = caplog.records
    assert "so the file has none" in said.getMessage() and "model=instantiate" in said.getMessage()


def test_what_cannot_be_resolved_is_said():
    with pytest.raises(InputError, match="cannot be resolved"):
        lazy_text(OmegaConf.create({"a": "${nowhere}"}))


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "a: 1",
        "{",
        '{"a": "os.system(1)"}',
        '{"_target_": "../x"}',
        '{"_target_": "a.b()"}',
        '{"_target_": 3}',
        '{"/etc": 1}',
        '{"a": ["b", "x.pkl"]}',
        '{"weights": "b"}',
        '{"a": 1e999}',
        '{"a": 9999999999}',
        "{" + '"a": {' * 20 + "}" * 21,
        json.dumps({"a": [0] * 30_000}),
        json.dumps({"a": "b" * (1 << 17)}),
    ],
)
def test_forged_texts_are_refused(text):
    with pytest.raises(PackedFileError, match="m: its config cannot be read"):
        read_lazy(text, "m")
