import torch

from ptq_det.quantizers import ShiftScaler
from ptq_det.quantizers.shift_scaler import channel_shifts

WEIGHT = torch.tensor([[127.0, -64.0], [32.0, 10.0], [0.0, 0.0], [1e-6, 0.0]])


def test_by_hand(device):
    # R = 127 and S = 1; 127/32 = 3.97 shifts by 1, and a factor of 10⁸ by the most there is
    weight = WEIGHT.to(device)
    assert channel_shifts(weight).tolist() == [0, 1, 0, 15]
    quantizer = ShiftScaler()
    codes = quantizer.codes(weight, 0.0)
    assert codes.tolist() == [[127, -64], [64, 20], [0, 0], [0, 0]]
    assert quantizer.scale(weight, codes).tolist() == [[1, 0.5, 1, 2**-15]]


def largest_error(weight, quantized):
    return (weight - quantized).abs().amax(1)


def test_narrow_channels_lose_one_bit_at_most(device):
    # Channels of a depthwise convolution whose ranges differ by up to 2⁸, as MobileNetV2's do.
    torch.manual_seed(0)
    weight = (torch.randn(256, 9) * torch.exp2(-8 * torch.rand(256, 1))).to(device)
    ranges = weight.abs().amax(1, keepdim=True)
    step = ranges / 127
    by_channel = (weight / step).round() * step
    layer_step = ranges.max() / 127
    by_layer = (weight / layer_step).round() * layer_step
    quantizer = ShiftScaler()
    codes = quantizer.codes(weight, 0.0)
    shifted = quantizer.dequantize(codes, quantizer.scale(weight, codes))

    bound = step[:, 0] / 2  # of quantization by channel
    assert (largest_error(weight, shifted) <= 2 * bound * 1.0001).all()
    assert (largest_error(weight, by_channel) <= bound * 1.0001).all()
    narrow = ranges[:, 0] < ranges.max() / 64
    assert narrow.sum() > 20
    ratio = largest_error(weight, by_layer)[narrow] / largest_error(weight, shifted)[narrow]
    assert float(ratio.min()) >= 10


def test_quantized_weights_are_recognized(device):
    quantizer = ShiftScaler()
    weight = (torch.randn(32, 20) * torch.exp2(-6 * torch.rand(32, 1))).to(device)
    assert not quantizer.is_quantized(weight)
    codes = quantizer.codes(weight, 0.0)
    quantized = quantizer.dequantize(codes, quantizer.scale(weight, codes))
    again = quantizer.dequantize(quantizer.codes(quantized, 0.0), quantizer.scale(quantized, codes))
    torch.testing.assert_close(again, quantized, rtol=0, atol=float(quantized.abs().max()) / 254)


def test_without_shifts_it_is_plain_quantization_by_layer(device):
    weight = WEIGHT.to(device)
    assert channel_shifts(weight, 0).tolist() == [0, 0, 0, 0]
    assert channel_shifts(weight, 2).tolist() == [0, 1, 0, 3]
    quantizer = ShiftScaler(shift_bits=0)
    codes = quantizer.codes(weight, 0.0)
    assert codes.tolist() == [[127, -64], [32, 10], [0, 0], [0, 0]]
    assert quantizer.scale(weight, codes).tolist() == [[1, 1, 1, 1]]
