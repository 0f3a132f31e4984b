import pytest
import torch
import torchvision
from detectron2.layers import (
    Conv2d,
    CycleBatchNormList,
    DeformConv,
    FrozenBatchNorm2d,
    NaiveSyncBatchNorm,
)
from torch import nn

from ptq_det import ternarize
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.ternary.norms import find_norms, fold_norms, norm_factor_and_shift
from tests.regnet import narrow_regnet


def test_every_norm_of_a_residual_network_is_found():
    model = torchvision.models.resnet18(weights=None).eval()
    norms = find_norms(model)
    assert norms["conv1"] == "bn1" and norms["layer2.0.downsample.0"] == "layer2.0.downsample.1"
    assert len(norms) == sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 20


def test_norms_inside_convolutions(cfg):
    norms = find_norms(build_float_model(cfg))
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


def test_folding_by_hand(device):
    norm = nn.BatchNorm2d(1, eps=0.0).eval().to(device)
    norm.running_mean.fill_(2.0)
    norm.running_var.fill_(4.0)
    norm.weight.data.fill_(3.0)
    norm.bias.data.fill_(1.0)
    factor, shift = norm_factor_and_shift(norm)
    assert (factor.item(), shift.item()) == (1.5, -2.0)
    assert norm_factor_and_shift(nn.GroupNorm(1, 1)) is None and norm_factor_and_shift(None) is None


def shift_scaled(layer, cfg):
    cfg.TERNARY.QUANTIZER, cfg.TERNARY.FREEZE_START = "ShiftScaler", 1.0
    model = nn.Sequential(layer).to(cfg.MODEL.DEVICE)
    ternarize(model, cfg)
    return model


def with_statistics(norm):
    lows = {"weight": 0.5, "bias": -1.0, "running_mean": -1.0, "running_var": 0.1}
    for name, low in lows.items():
        getattr(norm, name).data.uniform_(low, 2.0)
    return norm


def test_folding_leaves_the_function_and_a_norm_that_only_shifts(cfg, device):
    norm = with_statistics(FrozenBatchNorm2d(6)).to(device)
    model = shift_scaled(Conv2d(4, 6, 3, bias=True, norm=norm), cfg).eval()
    plain = Conv2d(4, 6, 3, bias=True, norm=norm).to(device)
    plain.load_state_dict({k: v.clone() for k, v in model[0].state_dict().items()}, strict=False)
    keys, x = model.state_dict().keys(), torch.randn(2, 4, 9, 9, device=device)
    before = plain(x)
    fold_norms(model)
    after = nn.functional.conv2d(x, model[0].weight, model[0].bias)
    after = norm(after)
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert model.state_dict().keys() == keys
    assert norm.weight.tolist() == [1.0] * 6 and not norm.running_mean.any()
    once = {name: value.clone() for name, value in model.state_dict().items()}
    fold_norms(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, once[name])


def test_live_norms_and_other_quantizers_are_left_alone(cfg):
    model = shift_scaled(Conv2d(4, 6, 3, norm=with_statistics(nn.BatchNorm2d(6))), cfg)
    weight = model[0].weight.detach().clone()
    fold_norms(model.train())
    assert torch.equal(model[0].weight, weight)
    fold_norms(model.eval())
    assert not torch.equal(model[0].weight, weight)
    cfg.TERNARY.QUANTIZER = "PTQ"
    other = nn.Sequential(Conv2d(4, 6, 3, norm=with_statistics(nn.BatchNorm2d(6)))).eval()
    ternarize(other, cfg)
    weight = other[0].weight.detach().clone()
    fold_norms(other)
    assert torch.equal(other[0].weight, weight)


class Standardized(nn.Conv2d):
    """Its forward is its own."""

    norm = None

    def forward(self, x):
        return super().forward(x) * 2


class BatchStatistics(nn.BatchNorm2d):
    """Normalizes by its batch in evaluation too, as Rethinking-BN's."""


def test_classes_that_are_not_known_exactly_are_left_out():
    known = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    assert find_norms(known.eval()) == {"0": "1"}
    own = Standardized(2, 2, 1)
    inside = Standardized(2, 2, 1)
    inside.norm = nn.BatchNorm2d(2)
    for sequence in ([own, nn.BatchNorm2d(2)], [nn.Conv2d(2, 2, 1), BatchStatistics(2)], [inside]):
        assert find_norms(nn.Sequential(*sequence).eval()) == {}


def test_one_convolution_in_two_places_is_left_out():
    conv, norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)
    two = nn.ModuleList([nn.Sequential(conv, norm), nn.Sequential(conv, nn.BatchNorm2d(2))])
    assert find_norms(two.eval()) == {}
    shared = [nn.Sequential(nn.Conv2d(2, 2, 1), norm) for _ in range(2)]
    assert find_norms(nn.ModuleList(shared).eval()) == {}

    class CalledTwice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x):
            return self.norm(self.conv(self.norm(self.conv(x))))

    assert find_norms(CalledTwice().eval()) == {}


@pytest.mark.parametrize(
    "norm", [FrozenBatchNorm2d, nn.BatchNorm2d, nn.SyncBatchNorm, NaiveSyncBatchNorm]
)
def test_norms_with_statistics_are_folded(norm):
    layer = Conv2d(2, 4, 1, norm=norm(4))
    assert find_norms(nn.Sequential(layer).eval()) == {"0": "0.norm"}


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.BatchNorm2d(4, track_running_stats=False),
        lambda: BatchStatistics(4),
        lambda: CycleBatchNormList(2, num_features=4),
        lambda: nn.GroupNorm(2, 4),
        lambda: nn.InstanceNorm2d(4, track_running_stats=True),
        lambda: nn.Identity(),
    ],
)
def test_norms_that_depend_on_their_input_are_not(norm):
    convolution = Conv2d(2, 4, 1, norm=norm())
    beside = nn.Sequential(nn.Conv2d(2, 4, 1), norm())
    assert find_norms(nn.ModuleList([convolution, beside]).eval()) == {}


def test_looking_for_norms_does_not_turn_a_cycle():
    class Levels(nn.Module):
        """Its forward can be traced, and calls one norm of the cycle each time."""

        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 4, 1), CycleBatchNormList(2, num_features=4)

        def forward(self, x):
            return self.norm(self.conv(x))

    model = Levels().eval()
    assert find_norms(model) == {} and model.norm._pos == 0


def test_norms_of_parts_are_found_where_the_whole_cannot_be_traced():
    model = nn.ModuleDict({"backbone": narrow_regnet(3)}).eval()
    found = find_norms(model)
    assert found["backbone.stem.conv"] == "backbone.stem.bn"
    assert found["backbone.s1.b1.f.a"] == "backbone.s1.b1.f.a_bn"
    assert found["backbone.s1.b1.proj"] == "backbone.s1.b1.bn"
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(found) == len(norms) == len(set(found.values()))


def test_norms_inside_deformable_convolutions():
    model = nn.Sequential(DeformConv(4, 4, 3, norm=nn.BatchNorm2d(4))).eval()
    assert find_norms(model) == {"0": "0.norm"}
    ternarize(model, {})
    assert find_norms(model) == {"0": "0.norm"}
