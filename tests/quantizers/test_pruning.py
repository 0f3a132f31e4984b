import math

import pytest
import torch

from ptq_det.quantizers.pruning import keep_largest_, project


def test_projection_by_hand(device):
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]], device=device)
    expected = torch.tensor([[0.6, 0.8], [0, 0], [0, -1]], device=device)
    torch.testing.assert_close(project(weight, by_filter=True), expected)
    torch.testing.assert_close(project(weight, by_filter=False), weight / math.sqrt(29))


def test_the_smallest_magnitudes_go_and_of_equal_ones_the_last(device):
    values = torch.tensor([[5.0, 1.0, 2.0, 2.0, 2.0, 0.5]], device=device)
    assert keep_largest_(values, 0.5).tolist() == [[1, 0, 1, 1, 0, 0]]


@pytest.mark.parametrize("levels", [1, 2, 7, 1000])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.8, 0.999])
def test_it_is_a_stable_sort_by_magnitude(levels, sparsity, device):
    values = torch.randint(0, levels, (37, 51), device=device).float()
    zeros = round(sparsity * values.numel())
    order = values.flatten().argsort(descending=True, stable=True)
    expected = torch.ones(values.numel(), device=device)
    expected[order[values.numel() - zeros :]] = 0
    expected[values.flatten() == 0] = 0  # a weight of 0 has no other code
    assert keep_largest_(values.clone(), sparsity).equal(expected.view_as(values))
