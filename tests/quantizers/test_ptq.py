import math

import pytest
import torch

from ptq_det.quantizers import PTQ
from ptq_det.quantizers.ptq import powers_of_two


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.8, 0.9, 0.999])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 577), (700, 701)])
@pytest.mark.parametrize("kind", ["normal", "half", "tied", "constant"])
def test_sparsity_is_the_one_asked_for(sparsity, shape, kind, device):
    weight = {
        "normal": lambda: torch.randn(shape),
        "half": lambda: torch.randn(shape).half().float(),  # as in downloaded weights: many ties
        "tied": lambda: torch.randint(1, 4, shape).float(),
        "constant": lambda: torch.full(shape, 0.25),
    }[kind]().to(device)
    for normalize in ("filter", "layer"):
        codes = PTQ(normalize).codes(weight, sparsity)
        assert abs(int((codes == 0).sum()) - sparsity * weight.numel()) <= 1


def test_codes_and_scales_by_hand(device):
    weight = torch.tensor([[3.0, -4.0, 0.1, 0.2], [0.03, 0.04, -0.001, 0.0]]).to(device)
    codes = PTQ().codes(weight, 0.5)
    assert codes.tolist() == [[1, -1, 0, 0], [1, 1, 0, 0]]
    torch.testing.assert_close(PTQ().scale(weight, codes).cpu(), torch.tensor([[3.5, 0.035]]))
    norms = PTQ(scale="norm").scale(weight, codes)[0].cpu()
    torch.testing.assert_close(norms[0], torch.tensor(math.sqrt((9 + 16 + 0.01 + 0.04) / 2)))
    # Over the layer the second filter is small beside the first.
    assert PTQ("layer").codes(weight, 0.5).tolist() == [[1, -1, 1, 1], [0, 0, 0, 0]]


def test_norm_keeping_scale_keeps_the_norm(device):
    weight = torch.randn(8, 50, device=device)
    for normalize, dim in (("filter", 1), ("layer", None)):
        quantizer = PTQ(normalize, scale="norm")
        codes = quantizer.codes(weight, 0.6)
        ternary = codes * quantizer.scale(weight, codes).T
        torch.testing.assert_close(
            torch.linalg.vector_norm(ternary, dim=dim), torch.linalg.vector_norm(weight, dim=dim)
        )


def test_mean_scale_has_the_least_squared_error(device):
    weight = torch.randn(4, 30, dtype=torch.float64, device=device)
    codes = PTQ().codes(weight, 0.5)
    scale = PTQ().scale(weight, codes)
    error = (weight - codes * scale.T).square().sum()
    for factor in (0.98, 1.02):
        assert (weight - codes * scale.T * factor).square().sum() > error


def test_a_threshold_replaces_the_sparsity(device):
    weight = torch.tensor([[0.6, 0.8, 0.0]], device=device)
    assert PTQ().codes(weight, 0.0, threshold=0.7).tolist() == [[0, 1, 0]]


def test_scales_become_powers_of_two_of_the_largest(device):
    scale = torch.tensor([[12.0, 9.0, 8.0, 5.9, 1e-9, 0.0]], device=device)
    # 12/9 = 2^0.42 and 12/8 = 2^0.58; a filter without codes takes the largest
    assert powers_of_two(scale).tolist() == [[12, 12, 6, 6, 12 * 2**-15, 12]]
    quantizer = PTQ(scale="shift")
    weight = torch.tensor([[3.0, -4.0, 0.1, 0.2], [1.0, 1.2, 0.0, 0.0]], device=device)
    assert quantizer.folds_norms
    assert quantizer.scale(weight, quantizer.codes(weight, 0.5)).tolist() == [[3.5, 0.875]]
