import pytest
import torch

from ptq_det.quantizers import SQuantizer, build_quantizer

WEIGHT = torch.tensor([[1.0, -2.0, 3.0, -4.0], [5.0, 6.0, -7.0, 8.0]])


def test_four_bits_by_hand(device):
    weight = WEIGHT.to(device)
    # mean|w| = 4.5: 5, 6, 7 and 8 are kept; levels from 4.5 to 8 in steps of 0.5
    quantizer = SQuantizer(bits=4, sigma=0.0)
    codes = quantizer.codes(weight, 0.0)
    assert codes.tolist() == [[0, 0, 0, 0], [2, 4, -6, 8]]
    scale = quantizer.scale(weight, codes)
    assert scale.tolist() == [[4.5], [0.5]]
    assert quantizer.dequantize(codes, scale).tolist() == [[0, 0, 0, 0], [5, 6, -7, 8]]
    assert quantizer.linear(scale) == (torch.tensor([[0.5]], device=device), 9.0)


def test_two_bits_by_hand(device):
    weight = WEIGHT.to(device)
    # kept magnitudes 5, 6, 7, 8: mean 6.5, standard deviation √1.25
    quantizer = SQuantizer(bits=2)
    codes = quantizer.codes(weight, 0.0)
    assert codes.tolist() == [[0, 0, 0, 0], [1, 1, -1, 2]]  # halfway is at 6.5 + 1.118
    scale = quantizer.scale(weight, codes)
    torch.testing.assert_close(scale.cpu(), torch.tensor([[6.5], [2 * 1.25**0.5]]))


def test_sigma_by_hand(device):
    weight = WEIGHT.to(device)
    # standard deviation of |w| = √5.25 = 2.291, so the threshold is 4.5 + 2.291 = 6.79
    codes = SQuantizer(bits=4, sigma=1.0).codes(weight, 0.0)
    assert (codes != 0).tolist() == [[False] * 4, [False, False, True, True]]


def test_rounding_errors_are_half_a_step_at_most(device):
    weight = torch.randn(64, 64, device=device)
    quantizer = build_quantizer("SQuantizer", bits=4, sigma=0.5)
    codes = quantizer.codes(weight, 0.0)
    scale = quantizer.scale(weight, codes)
    error = (quantizer.dequantize(codes, scale) - weight).abs()[codes != 0]
    assert float(error.max()) <= 0.5001 * float(scale[1])
    assert codes.abs().max() == 8 and quantizer.levels == 8


@pytest.mark.parametrize("bits", [2, 4])
def test_sparsity_rises_with_sigma(bits, device):
    weight = torch.randn(64, 64, device=device)
    sparsities = [
        float((SQuantizer(bits, sigma).codes(weight, 0.0) == 0).float().mean())
        for sigma in (-0.5, 0.0, 0.5, 1.0)
    ]
    assert sparsities == sorted(sparsities) and sparsities[-1] > sparsities[0] + 0.2


def test_many_magnitudes_are_not_taken_for_levels(device):
    weight = torch.randn(64, 500, device=device)
    weight[0, 0] = 0.0  # as random weights have one now and then
    assert not SQuantizer(bits=4).is_quantized(weight)
