import pytest
import torch

from ptq_det.compensation.moments import InputMoments
from ptq_det.compensation.solver import (
    _inverse_factor,
    _one_pass,
    compensate,
    make_good,
)
from ptq_det.quantizers import dequantize
from ptq_det.quantizers.ptq import PTQ
from tests.compensation.inputs import correlated_inputs, inputs_and_exact, moments_of


def test_making_good_for_inputs_that_are_too_small(device):
    # Inputs that are a half of the exact ones: twice the weight, but for the damping of 0.1.
    exact = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]], device=device)
    moments = inputs_and_exact(exact / 2, exact)
    weight = torch.tensor([[1.0, -2.0]], device=device)
    torch.testing.assert_close(make_good(weight, moments, moments, True), weight + weight / 1.1)
    none = InputMoments(2, device)
    assert torch.equal(make_good(weight, moments, none, True), weight)
    assert torch.equal(make_good(weight, none, moments, True), weight)


def test_what_does_not_help_on_other_pictures_is_left_alone(device):
    x = torch.randn(60, 40, device=device)
    weight = torch.randn(8, 40, device=device)
    fit = inputs_and_exact(x[:30], x[:30] + torch.randn(30, 40, device=device))
    held = inputs_and_exact(x[30:], x[30:] + torch.randn(30, 40, device=device))
    assert torch.equal(make_good(weight, fit, held, True), weight)  # nothing but noise


def test_weights_follow_what_inputs_lack(device):
    exact = correlated_inputs(40, device=device)
    x = exact @ (
        torch.eye(40, device=device) + 0.1 * torch.randn(40, 40, device=device)
    ) + 0.1 * torch.randn_like(exact)
    weight = torch.randn(8, 40, device=device)
    found = make_good(
        weight,
        inputs_and_exact(x[:3000], exact[:3000]),
        inputs_and_exact(x[3000:], exact[3000:]),
        True,
    )

    def error(w):
        lost = exact @ weight.T - x @ w.T
        return float((lost - lost.mean(0)).square().sum())

    assert error(found) < 0.5 * error(weight)


def test_an_error_moves_to_the_weight_of_the_same_input_by_hand(device):
    # Inputs 0 and 2 are the same one. Damping adds a tenth of the mean variance of 1 to each.
    moments = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]], device=device)
    order, factor = _inverse_factor(moments)
    damped = moments[order][:, order] + 0.1 * torch.eye(3, device=device)
    torch.testing.assert_close(factor.T @ factor, damped.inverse())
    upper = torch.linalg.cholesky(
        (moments + 0.1 * torch.eye(3, device=device)).inverse(), upper=True
    )
    weight = torch.tensor([[1.0], [0.6], [0.5]], device=device)
    latent = _one_pass(weight, upper, *torch.tensor([[0.55], [0.8]], device=device))
    # 1.0 becomes 0.8; of the 0.2 that are lost, the third weight takes 1 / 1.1.
    assert latent.flatten().tolist() == pytest.approx([1.0, 0.6, 0.5 + 0.2 / 1.1])


@pytest.mark.parametrize("scale", ["mean", "norm"])
@pytest.mark.parametrize("normalize", ["filter", "layer"])
@pytest.mark.parametrize("sparsity", [0.0, 0.6, 0.9])
def test_outputs_are_kept_better_than_in_one_shot(normalize, scale, sparsity, device):
    quantizer = PTQ(normalize, scale)
    x = correlated_inputs(144, device=device)
    x -= x.mean(0)
    weight = torch.randn(32, 144, device=device) * (0.5 + torch.rand(32, 1, device=device))
    found = compensate(
        weight, [torch.arange(144, device=device)], [moments_of(x)], sparsity, quantizer
    )

    def error(latent):
        codes = quantizer.codes(latent, sparsity)
        assert codes.eq(0).sum() == round(sparsity * codes.numel())
        value = dequantize(codes, quantizer.scale(latent, codes))
        return float((x @ (weight - value).T).square().sum() / (x @ weight.T).square().sum())

    assert found.error_before == pytest.approx(error(weight), rel=0.01)
    assert found.error == pytest.approx(error(found.latent), rel=0.01)
    assert error(found.latent) < 0.6 * error(weight)


def test_inputs_without_correlation_change_no_code(device):
    weight = torch.randn(16, 60, device=device)
    found = compensate(
        weight, [torch.arange(60, device=device)], [torch.eye(60, device=device)], 0.7, PTQ()
    )
    assert torch.equal(PTQ().codes(found.latent, 0.7), PTQ().codes(weight, 0.7))
    assert found.error == pytest.approx(found.error_before)


def test_groups_of_columns_are_apart(device):
    x = correlated_inputs(48, device=device)
    weight = torch.randn(16, 96, device=device)
    columns = [torch.arange(0, 96, 2, device=device), torch.arange(1, 96, 2, device=device)]
    both = compensate(weight, columns, [moments_of(x)] * 2, 0.5, PTQ())
    assert both.error < 0.6 * both.error_before


def test_inputs_and_filters_of_zeros(device):
    weight = torch.randn(8, 12, device=device)
    weight[3] = 0
    columns = [torch.arange(6, device=device), torch.arange(6, 12, device=device)]
    found = compensate(
        weight, columns, [torch.zeros(6, 6, device=device), torch.eye(6, device=device)], 0.5, PTQ()
    )
    assert found.latent.isfinite().all()
    nothing = compensate(
        torch.zeros(8, 12, device=device),
        columns,
        [torch.zeros(6, 6, device=device)] * 2,
        0.5,
        PTQ(),
    )
    assert nothing.latent.eq(0).all() and nothing.error == 0


@pytest.mark.parametrize("offset", [300.0, 3000.0, 1e5])
def test_inputs_far_from_zero_mean(offset, device):
    """Rounding leaves moments about the mean that are not positive definite."""
    x = torch.randn(2000, 40, device=device) + offset
    weight = torch.randn(8, 40, device=device)
    found = compensate(weight, [torch.arange(40, device=device)], [moments_of(x)], 0.5, PTQ())
    assert found.latent.isfinite().all() and int((PTQ().codes(found.latent, 0.5) == 0).sum()) == 160


def test_moments_that_are_not_finite_have_no_factor(device):
    with pytest.raises(torch.linalg.LinAlgError):
        compensate(
            torch.randn(4, 6, device=device),
            [torch.arange(6, device=device)],
            [torch.full((6, 6), torch.nan, device=device)],
            0.5,
            PTQ(),
        )
