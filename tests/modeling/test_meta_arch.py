"""What Detectron2's own entry points make of a config with the node TERNARY."""

import logging

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.engine import DefaultPredictor, DefaultTrainer, SimpleTrainer
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, build_model
from detectron2.utils import logger as detectron2_logger
from torch import nn

from ptq_det import PTQHook, TernaryTrainer, load_packed, pack_model
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.ternary.ternarize import ternary_layers


def test_build_model_follows_the_node(cfg, caplog):
    with caplog.at_level(logging.INFO, "ptq_det"):
        model = build_model(cfg)
    assert type(model) is GeneralizedRCNN and len(ternary_layers(model)) > 20
    assert "Ternary layers: " in caplog.text and "runs in float" not in caplog.text
    names = set(ternary_layers(TernaryTrainer.build_model(cfg)))
    assert names == set(ternary_layers(model))
    assert not ternary_layers(build_float_model(cfg)) and cfg.TERNARY.ENABLED
    cfg.TERNARY.ENABLED = False
    assert not ternary_layers(build_model(cfg))
    del cfg["TERNARY"]
    assert not ternary_layers(build_model(cfg))
    assert not ternary_layers(build_float_model(cfg))


def test_the_registry_gives_what_classes_are_made_of(cfg):
    found = META_ARCH_REGISTRY.get("GeneralizedRCNN")
    assert found is META_ARCH_REGISTRY.get("GeneralizedRCNN")
    assert issubclass(found, GeneralizedRCNN) and found.__name__ == "GeneralizedRCNN"
    assert isinstance(GeneralizedRCNN(cfg), found)
    assert set(found.from_config(cfg)) == set(GeneralizedRCNN.from_config(cfg))

    class Mine(found):
        def extra(self):
            return 3

    assert type(Mine(cfg)) is Mine and Mine(cfg).extra() == 3
    plain = found(**GeneralizedRCNN.from_config(cfg))
    assert type(plain) is GeneralizedRCNN and not ternary_layers(plain)  # there is no config


def test_a_function_that_makes_a_network_is_honoured(cfg):
    def tiny(cfg):
        return nn.Sequential(nn.Conv2d(8, 8, 3))

    META_ARCH_REGISTRY.register(tiny)
    cfg.MODEL.META_ARCHITECTURE = "tiny"
    cfg.TERNARY.SPARSITY_OVERRIDES = []
    try:
        assert list(ternary_layers(build_model(cfg))) == ["0"]
        assert not ternary_layers(build_float_model(cfg))
    finally:
        del META_ARCH_REGISTRY._obj_map["tiny"]


def test_a_network_from_outside_is_honoured_too(cfg):
    class Tiny(nn.Module):
        def __init__(self, cfg):
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3)

    META_ARCH_REGISTRY.register(Tiny)
    cfg.MODEL.META_ARCHITECTURE = "Tiny"
    cfg.TERNARY.SPARSITY_OVERRIDES = []
    try:
        assert list(ternary_layers(build_model(cfg))) == ["conv"]
    finally:
        META_ARCH_REGISTRY._obj_map.pop("Tiny")


def test_an_engine_that_is_not_followed_is_said(cfg, caplog):
    cfg.TERNARY.ENGINE = "int8"
    build_model(cfg)
    assert "This model runs in float: TERNARY.ENGINE int8 is for packed files" in caplog.text


@pytest.mark.parametrize("kind", ["latent", "frozen", "packed"])
@pytest.mark.parametrize("entry", ["DefaultPredictor", "DefaultTrainer"])
def test_detectron2_evaluates_what_our_tool_does(kind, entry, cfg, tmp_path):
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.INPUT.MIN_SIZE_TEST = 64
    torch.manual_seed(3)
    model = TernaryTrainer.build_model(cfg)
    if kind != "latent":
        for layer in ternary_layers(model).values():
            layer.snap()
    model.eval()
    cfg.MODEL.WEIGHTS = str(tmp_path / f"{kind}.pth")
    torch.save({"model": model.state_dict()}, cfg.MODEL.WEIGHTS)
    if kind == "packed":
        cfg.MODEL.WEIGHTS = str(tmp_path / "m.safetensors")
        pack_model(model, cfg, cfg.MODEL.WEIGHTS)
        model = load_packed(cfg.MODEL.WEIGHTS, "cpu")
    picture = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).numpy()
    tensor = torch.from_numpy(picture).permute(2, 0, 1).float()
    sample = {"image": tensor, "height": 64, "width": 64}
    with torch.no_grad():
        (wanted,) = model([sample])
        if entry == "DefaultPredictor":
            found = DefaultPredictor(cfg)(picture[:, :, ::-1])  # it takes BGR
        else:  # as the stock tools/train_net.py --eval-only
            other = DefaultTrainer.build_model(cfg)
            DetectionCheckpointer(other).resume_or_load(cfg.MODEL.WEIGHTS)
            (found,) = other.eval()([sample])
    wanted, found = wanted["instances"], found["instances"]
    assert len(found) == len(wanted) > 0
    torch.testing.assert_close(found.scores, wanted.scores, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("hooked", [False, True])
def test_a_training_without_the_hook_says_so_once(hooked, cfg, caplog):
    detectron2_logger._LOG_COUNTER.clear()
    model = build_model(cfg)
    loader = DefaultTrainer.build_train_loader(cfg)
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    trainer = SimpleTrainer(model.train(), loader, optimizer)
    if hooked:
        for layer in ternary_layers(model).values():
            layer.ternary.loaded = True
        trainer.register_hooks([PTQHook(cfg)])
    trainer.train(0, 2)
    said = [r for r in caplog.records if "without ptq_det.PTQHook" in r.getMessage()]
    assert len(said) == (0 if hooked else 1)
    assert hooked or "trainer.register_hooks([ptq_det.PTQHook(cfg)])" in said[0].getMessage()
