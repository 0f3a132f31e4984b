"""Trainings of lazy configs, and what they end with."""

import logging
import os

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall, LazyConfig, instantiate
from omegaconf import OmegaConf

from ptq_det import load_packed
from ptq_det.errors import InputError
from ptq_det.lazy import ternary
from ptq_det.packing.packed_model import PackedModel
from ptq_det.training import lazy_training
from ptq_det.training.lazy_training import evaluate, train
from tests.conftest import REPO
from tests.lazy_models import narrow_new_baseline, narrow_vitdet

CONFIG = str(REPO / "tests/training/lazy_config.py")


@pytest.fixture
def cfg(pictures, tmp_path):
    cfg = LazyConfig.load(CONFIG)
    cfg.train.output_dir = str(tmp_path / "out")
    return cfg


def test_a_training_ends_with_a_packed_file_which_is_evaluated(cfg, tmp_path, monkeypatch):
    tested = []
    run = lazy_training.inference_on_dataset
    monkeypatch.setattr(
        lazy_training,
        "inference_on_dataset",
        lambda model, *rest: tested.append(model) or run(model, *rest),
    )
    results = train(cfg, resume=False)
    assert set(results) == {"bbox", "segm"}
    path = tmp_path / "out/model_final.safetensors"
    packed = PackedModel.read(path)
    assert packed.classes[:2] == ["circle", "square"]
    zeros = [float((x.values == 0).mean()) for x in packed.layers.values() if x.kind == "ternary"]
    assert len(zeros) > 10 and sum(zeros) / len(zeros) == pytest.approx(0.7, abs=0.05)
    (model,) = tested
    held = load_packed(path, model=cfg.model).state_dict()
    assert all(torch.equal(value, held[name]) for name, value in model.state_dict().items())
    # The last step rounds to what the file holds.
    saved = torch.load(tmp_path / "out/model_final.pth")["model"]
    plain = packed.state_dict()["roi_heads.box_predictor.cls_score.weight"]
    torch.testing.assert_close(saved["roi_heads.box_predictor.cls_score.weight"], plain)
    assert (tmp_path / "out/ternary_statistics.json").is_file()

    cfg.train.init_checkpoint = str(path)
    from_file = evaluate(cfg, resume=False)
    cfg.train.init_checkpoint = str(tmp_path / "out/model_final.pth")
    from_checkpoint, from_last = evaluate(cfg, resume=False), evaluate(cfg, resume=True)
    for found in (from_file, from_checkpoint, from_last):
        assert found["bbox"]["AP"] == pytest.approx(results["bbox"]["AP"], rel=1e-3)


def test_the_size_is_that_of_the_file_with_its_config(cfg, monkeypatch):
    packed_as = []
    unchecked = PackedModel.unchecked
    monkeypatch.setattr(
        PackedModel,
        "unchecked",
        lambda model, cfg, *rest: packed_as.append(cfg) or unchecked(model, cfg, *rest),
    )
    cfg.ternary.target_mib = 0.2
    cfg.train.max_iter = 1
    train(cfg, resume=False)
    assert packed_as and all(given is cfg for given in packed_as)


def test_it_goes_on_from_its_last_checkpoint(cfg, tmp_path, caplog):
    del cfg.dataloader.evaluator
    cfg.train.max_iter = 2
    train(cfg, resume=False)
    cfg.train.max_iter = 4
    with caplog.at_level(logging.INFO):
        logging.getLogger("ptq_det").propagate = True
        train(cfg, resume=True)
    assert torch.load(tmp_path / "out/model_final.pth")["iteration"] == 3
    said = [record.getMessage() for record in caplog.records]
    assert any("Iteration 2: stage frozen" in text for text in said)
    cfg.train.max_iter = 3
    with pytest.raises(InputError, match=r"has had 4 iterations, and train.max_iter is 3"):
        train(cfg, resume=True)
    held = torch.load(tmp_path / "out/model_final.pth")
    held["trainer"] = {"optimizer": 3}
    torch.save(held, tmp_path / "out/model_final.pth")
    with pytest.raises(InputError, match=r"model_final.pth cannot be resumed from"):
        train(cfg, resume=True)


@pytest.mark.parametrize("make", [narrow_new_baseline, narrow_vitdet])
def test_other_architectures_are_trained_packed_and_loaded(make, cfg, tmp_path):
    """By a model that the config makes ternary itself."""
    settings = OmegaConf.to_container(cfg.pop("ternary"))
    model = make()
    model.roi_heads.num_classes = 6
    cfg.model = LazyCall(ternary)(model=model, **settings)
    cfg.dataloader.train.mapper.image_format = model.input_format
    cfg.train.max_iter = 2
    results = train(cfg, resume=False)
    path = tmp_path / "out/model_final.safetensors"
    assert set(results) == {"bbox", "segm"} and os.path.getsize(path) < 200_000
    loaded = load_packed(path, model=cfg.model)
    trained = instantiate(cfg.model).eval()
    DetectionCheckpointer(trained).load(str(tmp_path / "out/model_final.pth"))
    picture = [{"image": torch.randint(0, 256, (3, 64, 64))}]
    with torch.no_grad():
        found, wanted = (m.backbone(m.preprocess_image(picture).tensor) for m in (loaded, trained))
    for name, value in wanted.items():  # the last step has rounded to what the file holds
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


def test_a_float_training_packs_nothing(cfg, tmp_path):
    cfg.ternary.enabled = False
    cfg.train.max_iter = 1
    del cfg.dataloader.evaluator
    train(cfg, resume=False)
    assert sorted(p.suffix for p in (tmp_path / "out").glob("model_*")) == [".pth"]


def test_random_weights_are_refused(cfg):
    cfg.ternary.require_trained = True
    with pytest.raises(InputError, match="layers to be ternarized were not loaded from a checkpo"):
        train(cfg, resume=False)
    with pytest.raises(InputError, match="weights of the model were not loaded"):
        evaluate(cfg, resume=False)
    cfg.ternary.engine = "int8"
    with pytest.raises(InputError, match="int8 runs packed files"):
        evaluate(cfg, resume=False)
