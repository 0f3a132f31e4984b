import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from torch import nn

from ptq_det import ternarize


def _randomize_norms(model):
    """Statistics and affine that are not those of a fresh norm, which folds away."""
    for module in model.modules():
        if isinstance(module, (FrozenBatchNorm2d, nn.BatchNorm2d)):
            with torch.no_grad():
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.2, 1.2).mul_(
                    torch.rand(len(module.weight)).sub(0.3).sign()
                )
                module.bias.normal_(0, 0.2)


@pytest.fixture
def randomize_norms():
    return _randomize_norms


@pytest.fixture
def model(cfg):
    """A tiny ternary Mask R-CNN whose norms do something, in evaluation mode."""
    torch.manual_seed(0)
    model = build_model(cfg)
    _randomize_norms(model)
    ternarize(model, cfg)
    return model.eval()


@pytest.fixture
def picture():
    return [{"image": torch.randint(0, 256, (3, 96, 80)), "height": 96, "width": 80}]
