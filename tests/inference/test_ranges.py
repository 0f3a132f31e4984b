import pytest
import torch

from ptq_det.inference.ranges import Quantization, best_range


def test_by_hand():
    quantization = Quantization.of(0.0, 51.0)
    assert (quantization.scale, quantization.zero_point) == (0.2, 0)
    x = torch.tensor([-3.0, 0.0, 0.29, 0.31, 51.0, 80.0])
    codes = quantization.quantize(x)
    assert codes.tolist() == [0, 0, 1, 2, 255, 255] and codes.dtype == torch.uint8
    assert quantization.dequantize(codes).tolist() == pytest.approx([0, 0, 0.2, 0.4, 51, 51])


def test_7_bits_by_hand():
    quantization = Quantization.of(-1.0, 11.7, 127)
    assert (quantization.scale, quantization.zero_point) == (pytest.approx(0.1), 10)
    codes = quantization.quantize(torch.tensor([-2.0, 0.0, 11.7, 30.0]))
    assert codes.tolist() == [0, 10, 127, 127]


@pytest.mark.parametrize("bounds", [(-3.0, 1.0), (-5.0, -1.0), (2.0, 9.0), (0.0, 0.0)])
def test_zero_has_a_code(bounds):
    quantization = Quantization.of(*bounds)
    code = quantization.quantize(torch.zeros(1))
    assert quantization.dequantize(code).item() == 0 and 0 <= quantization.zero_point <= 255


def test_ordinary_values_keep_their_range_and_outliers_lose_theirs():
    assert best_range(torch.linspace(-1, 3, 100_001), -1.0, 3.0) == pytest.approx((-1, 3))
    # A single value of 6: to give it a code would cost all others half of their steps.
    assert best_range(torch.linspace(0, 3, 100_001), 0.0, 6.0) == pytest.approx((0, 3), abs=0.1)
    assert best_range(torch.zeros(4), 0.0, 0.0) == (0, 0)
