import math

import torch

from ptq_det.quantizers.pruning import project, prune_


def test_projection_by_hand():
    weight = torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]])
    assert project(weight, by_filter=True).tolist() == [
        [0.6000000238418579, 0.800000011920929],
        [0, 0],
        [0, -1],
    ]
    torch.testing.assert_close(project(weight, by_filter=False), weight / math.sqrt(29))


def test_the_smallest_magnitudes_go_and_of_equal_ones_the_last():
    values = torch.tensor([[5.0, 1.0, 2.0, 2.0, 2.0, 0.5]])
    assert prune_(values, 0.5).tolist() == [[5, 0, 2, 2, 0, 0]]
