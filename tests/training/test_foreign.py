import argparse
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from safetensors.torch import save_file

from ptq_det.errors import InputError
from ptq_det.modeling.meta_arch import build_float_model

NAME = "backbone.fpn_lateral2.weight"


def prefixed(weights, prefix):
    return {prefix + name: value for name, value in weights.items()}


def loaded(cfg, path):
    model = build_float_model(cfg)
    DetectionCheckpointer(model).load(str(path))
    return model.state_dict()[NAME]


@pytest.mark.parametrize(
    "form",
    [
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"model_ema": w},
        lambda w: {"state_dict": {f"module.{k}": v for k, v in w.items()}},
        lambda w: {"model": w, "best_ap": np.float64(1.5), "count": np.int64(3)},
        lambda w: w,
        lambda w: {"ema_state": w},
        lambda w: {"weights": w, "epoch": 3},
        lambda w: {"generator": w},
        lambda w: {"something": w},
        lambda w: {"state_dict": {f"model.{k}": v for k, v in w.items()}},
        lambda w: {"checkpoint": {"model": w}},
        lambda w: {"model": {k: v.numpy() for k, v in w.items()}},
        lambda w: {"model": w, "args": argparse.Namespace(lr=1), "path": Path("x")},
        lambda w: {"model": "rcnn", "net": w},
        lambda w: {"state_dict": {"criterion.scale": torch.ones(9)} | prefixed(w, "model.")},
        lambda w: prefixed(w, "module._orig_mod."),
        lambda w: {"discriminator": {str(i): torch.ones(1) for i in range(999)}, "generator": w},
        lambda w: {"losses": np.zeros(3), "nested": {"weights": w}},
        lambda w: {**w, "epoch": 3, "note": "text"},
        lambda w: {k: v.numpy().astype(v.numpy().dtype.newbyteorder(">")) for k, v in w.items()},
        lambda w: {"model": w, "losses": np.zeros(3), "note": "text"},
    ],
)
def test_weights_are_found_where_other_tools_put_them(form, cfg, tmp_path):
    weights = build_float_model(cfg).state_dict()
    weights[NAME] = torch.full_like(weights[NAME], 0.5)
    torch.save(form(weights), tmp_path / "w.pth")
    assert torch.equal(loaded(cfg, tmp_path / "w.pth"), weights[NAME])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("w.pkl", b"<html>not found</html>", "a web page"),
        ("w.pth", b"", "it is empty"),
        ("w.pkl", b"\x80\x04 cut", "cut, or no checkpoint"),
        ("w.safetensors", b"version https://git-lfs.github.com/spec/v1\noid s", "git lfs pull"),
        ("w.safetensors", b"<!DOCTYPE html>", "a web page"),
        ("w.pth", b"PK\x03\x04" + bytes(3000), "cut, or no checkpoint"),
    ],
)
def test_files_that_are_no_checkpoint_are_called_what_they_are(
    name, content, message, cfg, tmp_path
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}' cannot be read.*{message}"):
        loaded(cfg, tmp_path / name)


@pytest.mark.parametrize("name", ["w.pkl", "w.safetensors", "w.bin"])
def test_torch_files_are_known_by_their_content(name, cfg, tmp_path):
    weights = build_float_model(cfg).state_dict()
    torch.save({"state_dict": weights}, tmp_path / name)
    assert torch.equal(loaded(cfg, tmp_path / name), weights[NAME])


def test_safetensors_are_known_by_their_content(cfg, tmp_path):
    weights = build_float_model(cfg).state_dict()
    save_file(weights, tmp_path / "w.pth")
    assert torch.equal(loaded(cfg, tmp_path / "w.pth"), weights[NAME])


def test_the_backbone_of_a_zoo_is_still_translated(cfg, tmp_path):
    weights = {"conv1_w": np.full((8, 3, 7, 7), 0.5, np.float32), "conv1_momentum": np.zeros(1)}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"blobs": weights}))
    model = build_float_model(cfg)
    DetectionCheckpointer(model).load(str(tmp_path / "w.pkl"))
    assert bool((model.backbone.bottom_up.stem.conv1.weight == 0.5).all())


def test_a_pickle_of_something_else(cfg, tmp_path):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(InputError, match="whole, but holds no weights by name"):
        loaded(cfg, tmp_path / "w.pkl")


@pytest.mark.parametrize(
    "content", [3, torch.ones(3), [1, 2], {"epoch": 3}, {"model": {}}, {"model": [1]}, "text"]
)
def test_files_without_weights_are_said(content, cfg, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth' (holds no weights|cannot be read)"):
        loaded(cfg, tmp_path / "w.pth")


def test_a_pickle_of_a_model_s_weights(cfg, tmp_path):
    weights = {k: v.numpy() for k, v in build_float_model(cfg).state_dict().items()}
    weights[NAME] = np.full_like(weights[NAME], 0.5)
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": weights}))
    assert bool((loaded(cfg, tmp_path / "w.pkl") == 0.5).all())


def test_weights_that_are_no_numbers_are_refused(cfg, tmp_path):
    weights = build_float_model(cfg).state_dict()
    weights[NAME][0, 0] = float("nan")
    torch.save({"model": weights}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"fpn_lateral2\.weight holds values that are no finite"):
        loaded(cfg, tmp_path / "w.pth")


class Custom:
    pass


def test_objects_that_could_run_code_are_named(cfg, tmp_path):
    torch.save({"model": build_float_model(cfg).state_dict(), "x": Custom()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"whole, but holds Python objects \(.*Custom\)") as error:
        loaded(cfg, tmp_path / "w.pth")
    assert "\x1b" not in str(error.value)
