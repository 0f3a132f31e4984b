import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from ptq_det.errors import InputError

NAME = "backbone.fpn_lateral2.weight"


def loaded(cfg, path):
    model = build_model(cfg)
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
    ],
)
def test_weights_are_found_where_other_tools_put_them(form, cfg, tmp_path):
    weights = build_model(cfg).state_dict()
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
        ("w.pth", b"PK\x03\x04" + bytes(3000), "cut, or no checkpoint"),
    ],
)
def test_files_that_are_no_checkpoint_are_called_what_they_are(
    name, content, message, cfg, tmp_path
):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name}' cannot be read.*{message}"):
        loaded(cfg, tmp_path / name)
