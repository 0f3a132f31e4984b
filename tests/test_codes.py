import numpy as np
import pytest
import torch

from ptq_det.codes import dequantize

CODES = [[1.0, 0, -2, 1], [0, 0, 0, -1]]


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_by_hand_on_arrays_and_tensors(kind):
    codes, scale = kind(CODES), kind([[2.0, 3.0], [5.0, 7.0]])
    assert dequantize(codes, scale[:1]).tolist() == [[2, 0, -4, 2], [0, 0, 0, -3]]
    assert dequantize(codes, scale).tolist() == [[2, 0, -10, 2], [0, 0, 0, -7]]
    assert dequantize(codes, scale[:1, :1], 1.5).tolist() == [[3, 0, -5, 3], [0, 0, 0, -3]]


def test_both_give_the_same_bits():
    codes = np.random.default_rng(0).integers(-7, 8, (20, 50)).astype(np.float32)
    scale = np.random.default_rng(1).random((2, 20), np.float32)
    expected = dequantize(torch.from_numpy(codes), torch.from_numpy(scale), 1.3)
    assert np.array_equal(dequantize(codes, scale, 1.3), expected.numpy())
