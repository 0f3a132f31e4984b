import pytest
import torch

from ptq_det.ternary.filters import filter_shape, from_filters, to_filters


@pytest.mark.parametrize(
    ("shape", "groups", "filters"),
    [
        ((8, 5), None, (8, 5, 1, 1)),
        ((8, 5, 3, 2), None, (8, 5, 3, 2)),
        ((6, 4, 2, 2), 1, (4, 6, 2, 2)),
        ((6, 4, 2, 2), 3, (12, 2, 2, 2)),
    ],
)
def test_filters_come_back(shape, groups, filters):
    weight = torch.randn(shape)
    rows = to_filters(weight, groups)
    assert filter_shape(shape, groups) == filters
    assert rows.shape == (filters[0], filters[1] * filters[2] * filters[3])
    assert torch.equal(from_filters(rows, shape, groups), weight)


def test_rows_of_a_transposed_convolution_are_its_output_channels():
    layer = torch.nn.ConvTranspose2d(6, 4, 2, groups=2, bias=False)
    x = torch.randn(1, 6, 3, 3)
    expected = layer(x)
    with torch.no_grad():
        rows = to_filters(layer.weight, 2).clone()
        rows[3] *= 2
        layer.weight.copy_(from_filters(rows, layer.weight.shape, 2))
    found = layer(x)
    assert torch.allclose(found[:, 3], 2 * expected[:, 3], atol=1e-6)
    assert torch.equal(found[:, :3], expected[:, :3])
