import numpy as np
import pytest
import torch
from torch import nn

from ptq_det.inference.int8 import layers
from ptq_det.inference.int8.layers import Int8Conv2d, Int8Deconv2d, Int8Linear, Int8Weights
from ptq_det.inference.ranges import Quantization
from ptq_det.packing.pack_layer import pack_layer
from ptq_det.packing.packed_layer import PackedLayer

SOURCE = Quantization(0.02, 60, 127)  # 7 bits: exact with any weights on any CPU


@pytest.fixture(params=["as this CPU is", "as without VNNI"], autouse=True)
def kernels(request, monkeypatch):
    if request.param == "as without VNNI":
        monkeypatch.setattr(layers, "saturates", lambda: True)


def codes(*shape):
    x = torch.randint(0, 128, shape, dtype=torch.uint8)
    return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x


def integer(layer):
    """A layer with weights that int8 holds exactly, and those weights."""
    with torch.no_grad():
        layer.weight.copy_(torch.randint(-127, 128, layer.weight.shape) / 64)
        transposed = isinstance(layer, nn.ConvTranspose2d)
        filters = layer.weight.transpose(0, 1) if transposed else layer.weight
        for each in filters:
            each[(0,) * each.dim()] = 127 / 64
    return layer, Int8Weights.of(pack_layer(layer, "float16", None, None))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("options", [{"padding": 1}, {"stride": 2}, {"groups": 4, "padding": 1}])
def test_convolution(options, relu):
    layer, weights = integer(nn.Conv2d(8, 12, 3, **options))
    x = codes(2, 8, 10, 14)
    exact = layer(SOURCE.dequantize(x))
    exact = exact.relu() if relu else exact
    found = Int8Conv2d(weights, layer, SOURCE, None, relu)(x)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=2e-2)
    target = Quantization.of(float(exact.detach().min()), float(exact.detach().max()))
    y = Int8Conv2d(weights, layer, SOURCE, target, relu)(x)
    assert y.dtype == torch.uint8 and y.is_contiguous(memory_format=torch.channels_last)
    assert (target.dequantize(y) - exact).abs().max() <= 0.52 * target.scale


def test_convolution_that_adds():
    layer, weights = integer(nn.Conv2d(8, 8, 1))
    x, other = codes(1, 8, 6, 6), codes(1, 8, 6, 6)
    represents = Quantization(0.1, 120)
    exact = (layer(SOURCE.dequantize(x)) + represents.dequantize(other)).relu()
    target = Quantization.of(0.0, float(exact.detach().max()))
    conv = Int8Conv2d(weights, layer, SOURCE, target, relu=True)
    y = conv.add_to(other, represents, x)
    assert (target.dequantize(y) - exact).abs().max() <= 0.52 * target.scale


def test_linear_and_empty_batches():
    layer, weights = integer(nn.Linear(40, 7))
    found = Int8Linear(weights, SOURCE, None)
    x = codes(5, 40)
    torch.testing.assert_close(found(x), layer(SOURCE.dequantize(x)), rtol=1e-3, atol=2e-2)
    assert found(x[:0]).shape == (0, 7)
    layer, weights = integer(nn.Conv2d(8, 8, 1))
    assert Int8Conv2d(weights, layer, SOURCE, SOURCE)(codes(1, 8, 4, 4)[:0]).shape == (0, 8, 4, 4)


@pytest.mark.parametrize("factor", [2, 3])
def test_transposed_convolution(factor):
    layer, weights = integer(nn.ConvTranspose2d(6, 4, factor, factor))
    x = codes(2, 6, 5, 7)
    found = Int8Deconv2d(weights, layer, SOURCE, None)(x)
    torch.testing.assert_close(found, layer(SOURCE.dequantize(x)), rtol=1e-3, atol=2e-2)


def test_transposed_convolution_of_nothing():
    layer, weights = integer(nn.ConvTranspose2d(6, 4, 2, 2))
    found = Int8Deconv2d(weights, layer, SOURCE, SOURCE)(codes(2, 6, 5, 7)[:0])
    assert found.shape == (0, 4, 10, 14)


def test_transposed_convolutions_with_overlaps_are_refused():
    layer = nn.ConvTranspose2d(6, 4, 3, 2)
    weights = Int8Weights(torch.zeros(4, 6, 3, 3, dtype=torch.int8), torch.ones(4), None)
    with pytest.raises(ValueError, match="overlaps"):
        Int8Deconv2d(weights, layer, SOURCE, None)


def test_ternary_codes_are_taken_as_they_are():
    values = np.array([[1, 0, -1], [0, 1, 1]], np.int8).reshape(2, 3, 1, 1)
    scale = np.array([[0.5, -0.25]], np.float16)
    layer = PackedLayer("ternary", (2, 3, 1, 1), None, values, scale)
    weights = Int8Weights.of(layer)
    assert weights.codes.flatten(1).tolist() == [[1, 0, -1], [0, -1, -1]]
    assert weights.scale.tolist() == [0.5, 0.25]
    one = PackedLayer("ternary", (2, 3, 1, 1), None, values, scale[:, :1])
    assert Int8Weights.of(one).scale.tolist() == [0.5, 0.5]


def test_other_codes_are_rounded():
    values = np.arange(-127, 128, dtype=np.int8)[:252].reshape(4, 63, 1, 1).copy()
    for layer in (
        PackedLayer("int8", (4, 63, 1, 1), None, values, np.full((1, 4), 0.3, np.float32)),
        PackedLayer("ternary", (4, 63, 1, 1), None, values.clip(-1, 1), np.array([[2.0], [3.0]])),
        PackedLayer("quantized", (4, 63, 1, 1), None, values, np.ones((1, 1)), offset=3.5),
        PackedLayer("float16", (4, 63, 1, 1), None, np.random.rand(4, 63, 1, 1).astype("f2")),
    ):
        weights = Int8Weights.of(layer)
        assert weights.codes.abs().max() <= 127
        found = weights.codes.flatten(1) * weights.scale.unsqueeze(1)
        error = (found - torch.from_numpy(layer.filters())).abs() / weights.scale.unsqueeze(1)
        assert error.max() <= 0.501


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_that_could_saturate_are_exact(sign):
    # Two products of a uint8 and an int8 can be beyond int16.
    layer = nn.Conv2d(64, 8, 1, bias=False)
    layer.weight.data.fill_(float(sign))
    weights = Int8Weights.of(pack_layer(layer, "int8", None, None))
    largest = layers.largest_input(weights)
    assert largest == (127 if layers.saturates() else 255)
    found = Int8Conv2d(weights, layer, Quantization(1.0, 0, largest), None)(full(largest))
    exact = torch.full((1, 8, 4, 4), sign * 64.0 * largest)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=0)


def test_where_inputs_have_8_bits_nevertheless_weights_lose_one():
    layer = nn.Conv2d(64, 2, 1, bias=False)
    with torch.no_grad():
        layer.weight[0], layer.weight[1] = 127.0, -103.0
        layer.weight[1, 0] = 127.0
    weights = Int8Weights.of(pack_layer(layer, "float16", None, None))
    found = Int8Conv2d(weights, layer, Quantization(1.0, 0), None)(full(255))[0, :, 0, 0].tolist()
    exact = [64 * 255 * 127, 255 * (127 - 63 * 103)]
    if layers.saturates():
        exact = [64 * 255 * 2 * 64, 255 * 2 * (64 - 63 * 52)]  # halves are rounded to even
    assert found == pytest.approx(exact)


def test_small_weights_take_all_inputs_as_they_are():
    weights = Int8Weights(torch.full((8, 64, 1, 1), 64, dtype=torch.int8), torch.ones(8), None)
    assert layers.largest_input(weights) == 255
    geometry = nn.Conv2d(64, 8, 1, device="meta")
    found = Int8Conv2d(weights, geometry, Quantization(1.0, 0), None)(full(255))
    assert found.eq(64 * 255 * 64).all()


def full(code):
    x = torch.full((1, 64, 4, 4), code, dtype=torch.uint8)
    return x.contiguous(memory_format=torch.channels_last)
