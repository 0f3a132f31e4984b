import pytest
import torch

from ptq_det.commands.waits import count_waits

READS = {
    "a number": lambda x: x.max().item(),
    "a truth": lambda x: bool(x.any()),
    "places of a mask": lambda x: x[x > 0],
    "a comparison": lambda x: x.equal(x),
    "places": lambda x: x.nonzero(),
    "counts": lambda x: torch.bincount(x.abs().long()),
}


@pytest.mark.parametrize("read", READS)
def test_each_read_is_counted(read, device):
    x = torch.randn(5, device=device)
    with count_waits(device) as waits:
        READS[read](x)
    assert waits


def test_what_stays_on_the_device_is_not_counted(device):
    x = torch.randn(5, device=device)
    with count_waits(device) as waits:
        x = torch.where(x > 0, x, 0).sort().values.cumsum(0)
        x[x.argsort()].sum()
    assert waits == []
