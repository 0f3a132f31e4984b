import pytest
import torch
import torchvision
from detectron2.modeling import build_model
from torch import nn

from ptq_det.packing import PackedFileError
from ptq_det.packing.architecture import build_architecture, find_norms


def test_every_norm_of_a_residual_network_is_found():
    model = torchvision.models.resnet18(weights=None).eval()
    norms = find_norms(model)
    assert norms["conv1"] == "bn1" and norms["layer2.0.downsample.0"] == "layer2.0.downsample.1"
    assert len(norms) == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 20


def test_norms_inside_convolutions(cfg):
    norms = find_norms(build_model(cfg))
    assert norms["backbone.bottom_up.stem.conv1"] == "backbone.bottom_up.stem.conv1.norm"
    assert norms["backbone.fpn_lateral5"] == "backbone.fpn_lateral5.norm"
    assert "roi_heads.mask_head.mask_fcn1" not in norms


def test_a_norm_that_others_see_too_is_not_folded():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    assert find_norms(Shared().eval()) == {}


def test_untraceable_models_have_no_norms_folded():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x):
            return self.norm(self.conv(x)) if x.sum() > 0 else x

    assert find_norms(Branching().eval()) == {}


def test_building_draws_no_random_weights(cfg):
    state = torch.get_rng_state()
    model = build_architecture(["detectron2"], lambda: cfg, "m")
    assert torch.equal(torch.get_rng_state(), state)
    assert model.state_dict().keys() == build_model(cfg).state_dict().keys()


@pytest.mark.parametrize("architecture", [["torchvision", "no_net", 5], ["torchvision"], [], [[]]])
def test_unknown_architectures_are_refused(architecture, cfg):
    with pytest.raises(PackedFileError, match="m: its architecture"):
        build_architecture(architecture, lambda: cfg, "m")
