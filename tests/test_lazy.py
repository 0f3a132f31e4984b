"""Lazy configs: models that no CfgNode describes, on loaders and trainers of others."""

import itertools

import pytest
import torch
from detectron2.config import LazyCall, instantiate
from detectron2.engine import SimpleTrainer
from detectron2.structures import BitMasks, Boxes, Instances
from omegaconf import OmegaConf

from ptq_det import PTQHook
from ptq_det.errors import InputError
from ptq_det.lazy import makes_ternary, model_node, settings_in, ternary, training_sets
from ptq_det.ternary.ternarize import ternary_layers
from ptq_det.training import hooks
from tests.lazy_models import narrow_rcnn


class Loader:
    """Somebody's own, which counts what is read of it."""

    def __init__(self):
        self.read = 0

    def __iter__(self):
        while True:
            self.read += 1
            found = Instances((64, 64))
            found.gt_boxes = Boxes([[8.0, 8, 40, 40]])
            found.gt_classes = torch.tensor([1])
            mask = torch.zeros(1, 64, 64, dtype=torch.bool)
            mask[:, 8:40, 8:40] = True
            found.gt_masks = BitMasks(mask)
            yield [{"image": torch.rand(3, 64, 64) * 255, "instances": found}]


def test_a_model_is_ternary_by_its_config():
    cfg = LazyCall(ternary)(model=narrow_rcnn(), sparsity=0.6, require_trained=False)
    model = instantiate(cfg)
    layers = ternary_layers(model)
    assert {layer.ternary.sparsity for layer in layers.values()} == {0.6}
    assert "roi_heads.box_head.fc1" in layers
    assert not any("stem" in name or "res2" in name for name in layers)
    with pytest.raises(InputError, match="'sparseness' is no setting; there are activation_bits, "):
        instantiate(LazyCall(ternary)(model=narrow_rcnn(), sparseness=0.6))


@pytest.mark.parametrize("given", ["node", "dictionary"])
def test_the_hook_takes_settings_and_the_trainer_s_own_loader(given, tmp_path):
    settings = {"sparsity": 0.7, "compensation": 2, "freeze_start": 0.5, "require_trained": False}
    if given == "node":
        settings = OmegaConf.create(settings)
    model, loader = instantiate(narrow_rcnn()).train(), Loader()
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    trainer = SimpleTrainer(model, loader, optimizer)
    trainer.register_hooks([PTQHook(settings, output_dir=str(tmp_path))])
    trainer.train(0, 2)
    assert loader.read >= 4  # two to compensate on, two to train on
    layers = ternary_layers(model)
    zeros = torch.cat([x.codes_and_value()[0].flatten() == 0 for x in layers.values()])
    assert float(zeros.float().mean()) == pytest.approx(0.7, abs=0.01)
    assert (tmp_path / "ternary_statistics.json").is_file()


def test_a_trainer_without_a_loader_is_told_what_to_do():
    model = instantiate(LazyCall(ternary)(model=narrow_rcnn(), require_trained=False)).train()
    trainer = SimpleTrainer(model, Loader(), torch.optim.SGD(model.parameters(), 1e-4))
    trainer.register_hooks([PTQHook({"require_trained": False})])
    trainer.data_loader = None
    with pytest.raises(InputError, match=r"SimpleTrainer has no data_loader.*COMPENSATION 0"):
        trainer.train(0, 1)


def test_what_a_lazy_config_says():
    node = narrow_rcnn()
    made = LazyCall(ternary)(
        model=node, sparsity=0.6, sparsity_overrides=[["*fc1", 0.9]], skip=["*stem*"]
    )
    whole = OmegaConf.create({"model": made}, flags={"allow_objects": True})
    for cfg in (whole, made):
        settings = settings_in(cfg)
        assert (settings.sparsity, settings.sparsity_overrides) == (0.6, (("*fc1", 0.9),))
        assert settings.skip == ("*stem*",)
        assert model_node(cfg)._target_ is node._target_
    assert ternary_layers(instantiate(made))["roi_heads.box_head.fc1"].ternary.sparsity == 0.9
    assert makes_ternary(whole) and training_sets(whole) == []

    plain = OmegaConf.create({"model": node}, flags={"allow_objects": True})
    assert not makes_ternary(plain) and settings_in(plain).sparsity == 0.8
    made._target_ = "ptq_det.lazy.ternary"  # as LazyConfig.save writes it
    assert settings_in(made).sparsity == 0.6
    assert model_node({"sparsity": 0.5}) is None and settings_in({"sparsity": 0.5}).sparsity == 0.5
    for names, expected in (("a", ["a"]), (["a", "b"], ["a", "b"])):
        data = {"dataloader": {"train": {"dataset": {"names": names}}}}
        assert training_sets(OmegaConf.create(data)) == expected


def test_node_and_call_together():
    """As with ``ternary.engine=int8`` behind a config whose model is ternary by its call."""
    made = LazyCall(ternary)(model=narrow_rcnn(), sparsity=0.6, skip=["*stem*"])
    cfg = OmegaConf.create({"model": made}, flags={"allow_objects": True})
    cfg.ternary = {"engine": "int8", "skip": ["*stem*"], "compensation": 2}
    settings = settings_in(cfg)
    assert (settings.sparsity, settings.engine, settings.compensation) == (0.6, "int8", 2)
    cfg.ternary.sparsity = 0.5
    with pytest.raises(InputError, match=r"says sparsity twice: 0.5 in its node.*0.6 in the call"):
        settings_in(cfg)
    del cfg.ternary.sparsity
    cfg.ternary.sparseness = 0.5
    with pytest.raises(InputError, match="'sparseness' is no setting"):
        settings_in(cfg)


def test_a_loader_that_can_be_read_once_is_trained_on_whole(monkeypatch):
    loader = Loader()
    seen, batches = [], itertools.islice(iter(loader), 3)
    model = instantiate(narrow_rcnn()).train()
    trainer = SimpleTrainer(model, batches, torch.optim.SGD(model.parameters(), 1e-4))
    trainer.register_hooks([PTQHook({"compensation": 2, "require_trained": False})])
    model.register_forward_pre_hook(lambda module, args: seen.append(args[0][0]["image"]))
    given = []
    compensate = hooks.compensate_model

    def watched(model, batches, count):
        given.extend(itertools.islice(batches, count))
        compensate(model, given, count)
        seen.clear()

    monkeypatch.setattr(hooks, "compensate_model", watched)
    trainer.train(0, 3)
    assert loader.read == 3 and len(given) == 2 and len(seen) == 3
    assert all(torch.equal(a[0]["image"], b) for a, b in zip(given, seen, strict=False))
