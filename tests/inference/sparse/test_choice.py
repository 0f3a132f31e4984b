import logging

import pytest
import torch

from ptq_det import load_packed
from ptq_det.inference.int8.backbone import Int8FPN
from ptq_det.inference.sparse import choice
from ptq_det.inference.sparse.backbone import SparseFPN
from ptq_det.inference.sparse.layers import SparseConv2d
from ptq_det.kernels import why_no_kernels
from tests.export.test_exporting import packed

pytestmark = pytest.mark.skipif(why_no_kernels() is not None, reason=str(why_no_kernels()))


@pytest.mark.parametrize("name", ["COCO-Detection/retinanet_R_50_FPN_1x"])
def test_every_layer_before_the_heads_is_timed(name, file, tmp_path, monkeypatch):
    timed = []
    monkeypatch.setattr(choice, "_least", lambda run: timed.append(run()) or 1.0)
    for each in (file, packed(name, tmp_path / "m.safetensors")):
        model = load_packed(each, "cpu", engine="sparse")
        timed.clear()
        kernels, onednn = choice.seconds_of_layers(model)
        body = [m for m in model.backbone.modules() if isinstance(m, SparseConv2d)]
        assert kernels == onednn == len(timed) / 2 > len(body)
        for own, other in zip(timed[::2], timed[1::2], strict=True):
            assert own.shape == other.shape


@pytest.mark.parametrize(("ratio", "kind"), [(0.0, SparseFPN), (0.5, SparseFPN), (2.0, Int8FPN)])
def test_what_is_faster_runs_and_is_told(ratio, kind, file, monkeypatch, caplog):
    monkeypatch.setattr("ptq_det.inference.sparse.engine.faster_by_onednn", lambda model: ratio)
    with caplog.at_level(logging.INFO, "ptq_det"):
        model = load_packed(file, "cpu", engine="sparse")
    assert type(model.backbone) is kind
    told = {
        0.0: "Engine: sparse, by kernels for",
        0.5: "whose layers take 50% of the time of oneDNN's",
        2.0: "Engine: sparse, by oneDNN, whose layers take 50% of the time of kernels for",
    }
    assert told[ratio] in caplog.text


def test_without_vnni_nothing_is_timed(monkeypatch):
    monkeypatch.setattr(choice, "saturates", lambda: True)
    monkeypatch.setattr(choice, "seconds_of_layers", None)
    assert choice.faster_by_onednn(None) == 0.0
    monkeypatch.setattr(choice, "saturates", lambda: False)
    monkeypatch.setattr(choice, "seconds_of_layers", lambda model: (3.0, 2.0))
    assert choice.faster_by_onednn(torch.nn.Identity()) == 1.5
