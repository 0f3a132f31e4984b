import pytest
import torch
from torch import nn

from ptq_det import ternarize
from ptq_det.packing import decode_codes, encode_codes
from ptq_det.sizing.observation import Observation
from ptq_det.sizing.sensitivity import coded_bytes, measure_layer, output_error
from ptq_det.ternary.filters import filter_shape


def ternary(layer, cfg):
    cfg.TERNARY.SKIP = ["!*"]
    ternarize(nn.Sequential(layer), cfg)
    return layer


def test_errors_are_those_of_the_quadratic_form():
    torch.manual_seed(1)
    lost, inputs = torch.randn(3, 5), torch.randn(64, 5) + 1
    seen = Observation(inputs, torch.tensor([1.0, 2.0, 0.5]))
    for centered in (False, True):
        x = inputs - inputs.mean(0) if centered else inputs
        moments = x.T @ x / len(x)
        wanted = sum(g * d @ moments @ d for g, d in zip(seen.weight, lost, strict=True))
        assert output_error(lost, seen, centered) == pytest.approx(float(wanted), rel=1e-4)


def test_taps_of_a_transposed_convolution_are_outputs_of_their_own():
    lost = torch.tensor([[1.0, 2.0, 10.0, 20.0]])  # two inputs with two taps each
    seen = Observation(torch.tensor([[1.0, 0.0]]), torch.ones(1))
    assert output_error(lost, seen, False, taps=2) == pytest.approx((1 + 4) / 2)


def test_bytes_are_those_of_the_codec(cfg):
    layer = ternary(nn.Conv2d(8, 16, 3), cfg)
    codes = layer.ternary.quantizer.codes(layer.to_filters(layer.weight.detach()), 0.7)
    values = codes.to(torch.int8).numpy().reshape(filter_shape(tuple(layer.weight.shape)))
    data = encode_codes(values)
    assert coded_bytes(layer, codes) == len(data)
    assert (decode_codes(data, values.shape) == values).all()


@pytest.mark.parametrize(
    "layer", [nn.Linear(64, 32), nn.Conv2d(16, 24, 3), nn.ConvTranspose2d(16, 24, 2, 2)]
)
def test_more_zeros_are_fewer_bytes_and_at_last_more_error(layer, cfg):
    layer = ternary(layer, cfg)
    columns = layer.to_filters(layer.weight).shape[1]
    if isinstance(layer, nn.ConvTranspose2d):
        columns //= 4
    filters = len(layer.to_filters(layer.weight))
    seen = Observation(torch.randn(100, columns), torch.ones(filters))
    curve = measure_layer("x", layer, seen, (0.45, 0.7, 0.95))
    assert curve.weights == layer.weight.numel() and curve.sparsities == (0.45, 0.7, 0.95)
    assert curve.sizes[0] > curve.sizes[1] > curve.sizes[2]
    assert curve.errors[0] < curve.errors[1] < curve.errors[2]
