import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from ptq_det import ternarize
from ptq_det.modeling.meta_arch import build_float_model


def _randomize_norms(model):
    """Statistics and affine that are not those of a fresh norm, which folds away."""
    for module in model.modules():
        if isinstance(module, (FrozenBatchNorm2d, nn.BatchNorm2d)):
            with torch.no_grad():
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.2, 1.2).mul_(
                    torch.rand(len(module.weight)).sub(0.3).sign().to(module.weight.device)
                )
                module.bias.normal_(0, 0.2)


@pytest.fixture
def randomize_norms():
    return _randomize_norms


@pytest.fixture
def model(cfg):
    """A tiny ternary Mask R-CNN whose norms do something, in evaluation mode."""
    torch.manual_seed(0)
    model = build_float_model(cfg)
    _randomize_norms(model)
    ternarize(model, cfg)
    return model.eval()


@pytest.fixture
def picture():
    return [{"image": torch.randint(0, 256, (3, 96, 80)), "height": 96, "width": 80}]


def _features(model, picture):
    with torch.no_grad():
        features = model.backbone(model.preprocess_image(picture).tensor)
    return {name: each.cpu() for name, each in features.items()}


def _assert_same_function(first, second, picture, tolerance=2e-2):
    for name, expected in _features(first, picture).items():
        found = _features(second, picture)[name]
        assert float((found - expected).norm() / expected.norm()) < tolerance, name
    x = torch.randn(3, first.roi_heads.mask_head.mask_fcn1.in_channels, 14, 14)
    with torch.no_grad():
        masks = [
            each.roi_heads.mask_head.layers(x.to(each.device)).cpu() for each in (first, second)
        ]
    torch.testing.assert_close(masks[1], masks[0], rtol=0.1, atol=0.02)


@pytest.fixture
def assert_same_function():
    """Checks that two models find the same features and masks."""
    return _assert_same_function
