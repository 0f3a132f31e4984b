import itertools

import pytest
import torch

from ptq_det.codes import dequantize as weight_of
from ptq_det.quantizers import (
    QUANTIZER_REGISTRY,
    build_quantizer,
    dequantize,
    group_mean,
    group_sum,
    options_of,
)

CODES = torch.tensor([[1.0, 0, -1, 1], [0, 0, 0, -1]])
VALUES = torch.tensor([[3.0, 9, -1, 5], [9, 9, 9, -4]])


def test_sums_and_means_are_those_computed_by_hand(device):
    values, codes = VALUES.to(device), CODES.to(device)
    assert group_sum(values, codes, by_filter=True, signs=1).tolist() == [[9, 4]]
    assert group_mean(values, codes, by_filter=True, signs=1).tolist() == [[3, 4]]
    assert group_mean(values, codes, by_filter=False, signs=1).tolist() == [[3.25]]
    assert group_mean(values, codes, by_filter=False, signs=2).tolist() == [[4], [2.5]]
    assert group_mean(values, codes, by_filter=True, signs=2).tolist() == [[4, 0], [1, 4]]


def test_dequantize_gives_each_side_its_scale(device):
    codes, scale = CODES.to(device), torch.tensor([[2.0, 3.0], [5.0, 7.0]], device=device)
    assert dequantize(codes, scale[:1]).tolist() == [[2, 0, -2, 2], [0, 0, 0, -3]]
    assert dequantize(codes, scale).tolist() == [[2, 0, -5, 2], [0, 0, 0, -7]]
    assert dequantize(codes, scale[:1, :1]).tolist() == (CODES * 2).tolist()


def every_quantizer():
    """Each registered quantizer, with every choice of those of its options that are a choice."""
    for name, kind in QUANTIZER_REGISTRY:
        options = options_of(kind)
        choices = [option.choices() for option in options.values()]
        for values in itertools.product(*choices):
            chosen = dict(zip(options, values, strict=True))
            title = "-".join(map(str, (name, *values)))
            yield pytest.param(build_quantizer(name, **chosen), id=title)


ODD_WEIGHTS = [
    torch.randn(7, 13),
    torch.randn(1, 1),
    torch.randn(5, 1),
    torch.zeros(3, 4),
    torch.zeros(1, 0),
    torch.full((3, 5), -0.5),
    torch.tensor([[0.0, 0, 0], [1, -2, 3]]),
    torch.randn(64, 9) * 1e-20,
    torch.randn(64, 9) * 1e15,
    torch.randn(8, 6, dtype=torch.float64),
]


@pytest.mark.parametrize("quantizer", list(every_quantizer()))
class TestEveryQuantizer:
    @pytest.mark.parametrize(
        "weight", ODD_WEIGHTS, ids=lambda w: f"{tuple(w.shape)}-{float(w.abs().sum()):.1g}"
    )
    def test_codes_and_scales_of_odd_weights(self, quantizer, weight, device):
        weight = weight.to(device)
        codes = quantizer.codes(weight, 0.5)
        scale = quantizer.scale(weight, codes)
        assert codes.shape == weight.shape and codes.dtype == weight.dtype
        assert set(codes.unique().tolist()) <= set(range(-quantizer.levels, quantizer.levels + 1))
        assert not ((codes != 0) & (codes.sign() != weight.sign())).any()
        assert scale.shape == (quantizer.scale_rows, len(weight) if quantizer.by_filter else 1)
        assert scale.isfinite().all() and (scale >= 0).all()

    def test_scaling_the_weight_scales_the_ternary_weight(self, quantizer, device):
        weight = torch.randn(16, 27, device=device)
        codes = quantizer.codes(weight, 0.7)
        assert torch.equal(codes, quantizer.codes(8 * weight, 0.7))
        scale, scaled = quantizer.scale(weight, codes), quantizer.scale(8 * weight, codes)
        torch.testing.assert_close(8 * scale, scaled)

    def test_linear_terms_give_the_same_weight(self, quantizer, device):
        weight = torch.randn(16, 27, device=device)
        codes = quantizer.codes(weight, 0.7)
        scale = quantizer.scale(weight, codes)
        step, offset = quantizer.linear(scale)
        value = weight_of(codes, step, offset)
        torch.testing.assert_close(value, quantizer.dequantize(codes, scale))

    def test_a_quantized_weight_has_its_codes_and_scale(self, quantizer, device):
        weight = torch.randn(64, 90, device=device)
        codes = quantizer.codes(weight, 0.7)
        scale = quantizer.scale(weight, codes)
        quantized = quantizer.dequantize(codes, scale)
        again = quantizer.codes_of_quantized(quantized)
        assert torch.equal(again, codes)
        torch.testing.assert_close(quantizer.scale_of_quantized(quantized, again), scale)

    def test_ternary_weights_are_recognized_and_latent_ones_are_not(self, quantizer, device):
        weight = torch.randn(16, 27, device=device)
        codes = quantizer.codes(weight, 0.7)
        ternary = quantizer.dequantize(codes, quantizer.scale(weight, codes))
        assert quantizer.is_quantized(ternary)
        assert not quantizer.is_quantized(weight)
        ternary[3, 5] += 0.01
        assert not quantizer.is_quantized(ternary)

    def test_works_under_autocast(self, quantizer, device):
        weight = torch.randn(16, 27, device=device)
        with torch.autocast(device, torch.bfloat16):
            codes = quantizer.codes(weight, 0.7)
            scale = quantizer.scale(weight, codes)
        assert torch.equal(codes, quantizer.codes(weight, 0.7))
        assert torch.equal(scale, quantizer.scale(weight, codes))
