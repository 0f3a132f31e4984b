import torch
import torchvision
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn

from ptq_det import ternarize
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.ternary.norms import find_norms, fold_norms, norm_factor_and_shift


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


def test_folding_by_hand():
    norm = nn.BatchNorm2d(1, eps=0.0).eval()
    norm.running_mean.fill_(2.0)
    norm.running_var.fill_(4.0)
    norm.weight.data.fill_(3.0)
    norm.bias.data.fill_(1.0)
    factor, shift = norm_factor_and_shift(norm)
    assert (factor.item(), shift.item()) == (1.5, -2.0)
    assert norm_factor_and_shift(nn.GroupNorm(1, 1)) is None and norm_factor_and_shift(None) is None


def shift_scaled(layer, cfg):
    cfg.TERNARY.QUANTIZER, cfg.TERNARY.FREEZE_START = "ShiftScaler", 1.0
    model = nn.Sequential(layer)
    ternarize(model, cfg)
    return model


def with_statistics(norm):
    lows = {"weight": 0.5, "bias": -1.0, "running_mean": -1.0, "running_var": 0.1}
    for name, low in lows.items():
        getattr(norm, name).data.uniform_(low, 2.0)
    return norm


def test_folding_leaves_the_function_and_a_norm_that_only_shifts(cfg):
    norm = with_statistics(FrozenBatchNorm2d(6))
    model = shift_scaled(Conv2d(4, 6, 3, bias=True, norm=norm), cfg).eval()
    plain = Conv2d(4, 6, 3, bias=True, norm=norm)
    plain.load_state_dict({k: v.clone() for k, v in model[0].state_dict().items()}, strict=False)
    keys, x = model.state_dict().keys(), torch.randn(2, 4, 9, 9)
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
