"""Lazy configs: models that no CfgNode describes, on loaders and trainers of others."""

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import LazyCall, instantiate
from detectron2.engine import SimpleTrainer
from detectron2.modeling.backbone.resnet import BasicBlock, ResNet
from detectron2.structures import BitMasks, Boxes, Instances
from omegaconf import OmegaConf

from ptq_det import PTQHook
from ptq_det.errors import InputError
from ptq_det.lazy import ternary
from ptq_det.ternary.ternarize import ternary_layers


def narrow():
    """Mask R-CNN's lazy config with narrow heads."""
    model = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
    model.backbone.out_channels = 16
    model.proposal_generator.head.in_channels = 16
    model.roi_heads.box_head.fc_dims = [16, 16]
    model.roi_heads.box_head.input_shape.channels = 16
    model.roi_heads.box_predictor.input_shape.channels = 16
    model.roi_heads.mask_head.input_shape.channels = 16
    model.roi_heads.mask_head.conv_dims = [16, 16]
    model.roi_heads.num_classes = 2
    stem = model.backbone.bottom_up.stem
    stem.out_channels, stem.norm = 8, "BN"
    stage = LazyCall(ResNet.make_stage)
    model.backbone.bottom_up.stages = [
        stage(
            block_class=BasicBlock, num_blocks=1, in_channels=8 * max(1, i), norm="BN",
            out_channels=8 * (i + 1), stride_per_block=[1 + (i > 0)],
        )
        for i in range(4)
    ]  # fmt: skip
    return model


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
    cfg = LazyCall(ternary)(model=narrow(), sparsity=0.6, require_trained=False)
    model = instantiate(cfg)
    layers = ternary_layers(model)
    assert {layer.ternary.sparsity for layer in layers.values()} == {0.6}
    assert "roi_heads.box_head.fc1" in layers
    assert not any("stem" in name or "res2" in name for name in layers)
    with pytest.raises(InputError, match="'sparseness' is no setting; there are activation_bits, "):
        instantiate(LazyCall(ternary)(model=narrow(), sparseness=0.6))


@pytest.mark.parametrize("given", ["node", "dictionary"])
def test_the_hook_takes_settings_and_the_trainer_s_own_loader(given, tmp_path):
    settings = {"sparsity": 0.7, "compensation": 2, "freeze_start": 0.5, "require_trained": False}
    if given == "node":
        settings = OmegaConf.create(settings)
    model, loader = instantiate(narrow()).train(), Loader()
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
    model = instantiate(LazyCall(ternary)(model=narrow(), require_trained=False)).train()
    trainer = SimpleTrainer(model, Loader(), torch.optim.SGD(model.parameters(), 1e-4))
    trainer.register_hooks([PTQHook({"require_trained": False})])
    trainer.data_loader = None
    with pytest.raises(InputError, match=r"SimpleTrainer has no data_loader.*COMPENSATION 0"):
        trainer.train(0, 1)
