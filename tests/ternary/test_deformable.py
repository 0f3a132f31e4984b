import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from detectron2.layers import DeformConv, ModulatedDeformConv, deform_conv
from torch import nn
from torchvision.ops import deform_conv2d

from ptq_det import ternarize
from ptq_det.compensation.whole_model import compensate_model
from ptq_det.ternary.deformable import TernaryDeformConv, TernaryModulatedDeformConv
from ptq_det.ternary.ternarize import make_plain, restore_classes

CASES = {
    "plain": (lambda: DeformConv(4, 6, 3, padding=1, norm=nn.BatchNorm2d(6)), TernaryDeformConv),
    "modulated": (lambda: ModulatedDeformConv(4, 6, 3, padding=1), TernaryModulatedDeformConv),
}
X, OFFSET, MASK = torch.randn(2, 4, 7, 7), torch.randn(2, 18, 7, 7), torch.rand(2, 9, 7, 7)


@pytest.fixture(autouse=True)
def _kernels_of_torchvision(monkeypatch):
    """In place of Detectron2's, which a CPU has not, or only forwards."""

    def plain(x, offset, weight, stride, padding, dilation, groups, deformable):
        return deform_conv2d(x, offset, weight, None, stride, padding, dilation)

    def modulated(x, offset, mask, weight, bias, stride, padding, dilation, groups, deformable):
        return deform_conv2d(x, offset, weight, bias, stride, padding, dilation, mask)

    monkeypatch.setattr(deform_conv, "deform_conv", plain)
    monkeypatch.setattr(deform_conv, "modulated_deform_conv", modulated)


def inputs(case):
    return (X, OFFSET) if case == "plain" else (X, OFFSET, MASK)


@pytest.mark.parametrize("case", CASES)
def test_the_forward_is_that_of_the_plain_layer_with_ternary_values(case):
    build, kind = CASES[case]
    plain = build().eval()
    layer = copy.deepcopy(plain)
    weight = layer.weight
    ternarize(nn.Sequential(layer), {})
    assert type(layer) is kind and layer.weight is weight
    plain.weight.data = layer.codes_and_value()[1]
    torch.testing.assert_close(layer(*inputs(case)), plain(*inputs(case)))
    assert layer.weight is weight  # the latent one again


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_reaches_the_latent_weight(case):
    layer = CASES[case][0]()
    ternarize(nn.Sequential(layer), {})
    layer(*inputs(case)).square().sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_threads_do_not_meet_in_a_layer():
    layer = CASES["plain"][0]().eval()
    ternarize(nn.Sequential(layer), {})
    wanted = layer(X, OFFSET).detach()
    both, met = threading.Barrier(2, timeout=10), []

    class Meeting(nn.Module):
        def forward(self, x):
            both.wait()  # both threads are inside
            met.append(type(layer.weight))
            both.wait()
            return x

    layer.norm, norm = Meeting(), layer.norm
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda x: layer(x, OFFSET), [X, X]))
    assert met == [nn.Parameter] * 2
    for each in found:
        torch.testing.assert_close(norm(each), wanted)


@pytest.mark.parametrize("case", CASES)
def test_keywords_are_those_of_the_plain_layer(case):
    layer = CASES[case][0]().eval()
    ternarize(nn.Sequential(layer), {})
    named = dict(zip(("x", "offset", "mask"), inputs(case), strict=False))
    assert torch.equal(layer(**named), layer(*inputs(case)))


def test_an_empty_batch_passes():
    layer = CASES["plain"][0]().eval()
    ternarize(nn.Sequential(layer), {})
    assert layer(X[:0], OFFSET[:0]).shape == (0, 6, 7, 7)


@pytest.mark.parametrize("case", CASES)
def test_back_to_the_plain_class(case):
    build, _ = CASES[case]
    for back in (restore_classes, make_plain):
        layer = build().eval()
        kind, attributes = type(layer), set(vars(layer))
        ternarize(nn.Sequential(layer), {})
        wanted = layer(*inputs(case)).detach()
        back(holder := nn.Sequential(layer))
        assert type(holder[0]) is kind and set(vars(layer)) == attributes
        if back is make_plain:
            torch.testing.assert_close(layer(*inputs(case)), wanted)


def test_they_are_not_compensated():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = DeformConv(4, 6, 3, padding=1)
            self.last = nn.Conv2d(6, 4, 3)

        def forward(self, x):
            return self.last(self.conv(X, OFFSET))

    model = Network()
    ternarize(model, {})
    before = [layer.weight.clone() for layer in (model.conv, model.last)]
    compensate_model(model, [X], 1)
    assert torch.equal(model.conv.weight, before[0])
    assert not torch.equal(model.last.weight, before[1])
