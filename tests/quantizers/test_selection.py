import pytest
import torch

from ptq_det.quantizers.selection import kth_smallest


@pytest.mark.parametrize("kind", ["normal", "sorted", "two values", "zeros", "periodic", "outlier"])
def test_equals_a_full_sort(kind, device):
    n = 300_000
    values = {
        "normal": lambda: torch.randn(n),
        "sorted": lambda: torch.arange(n).float(),
        "two values": lambda: torch.randint(0, 2, (n,)).float(),
        "zeros": lambda: torch.zeros(n),
        "periodic": lambda: torch.arange(n).remainder(5).float() - 2,  # as long as the stride
        "outlier": lambda: torch.cat([torch.randn(n - 1), torch.tensor([1e9])]),
    }[kind]().to(device)
    ordered = values.sort().values
    for k in (1, 2, n // 100, n // 2, int(0.8 * n), n - 1, n):
        assert kth_smallest(values.view(-1, 100), k) == ordered[k - 1]
