import pytest
import torch

from ptq_det.commands.benchmarks import benchmark_kernels, kernels
from ptq_det.errors import InputError
from ptq_det.kernels import why_no_kernels


@pytest.mark.skipif(why_no_kernels() is not None, reason=str(why_no_kernels()))
def test_every_kind_has_a_speed(capsys):
    before = torch.get_num_threads()
    result = benchmark_kernels(1, 2, ((16, 24, 3, 9, 11), (8, 8, 1, 5, 5)))
    assert torch.get_num_threads() == before and result["threads"] == 2
    speeds = result["gmac_per_s"]
    assert list(speeds) == ["16 → 24, 3 × 3, 9 × 11", "8 → 8, 1 × 1, 5 × 5"]
    for each in speeds.values():
        assert {"float32", "channels-last", "oneDNN int8", "80% zeros", "dense"} <= set(each)
        assert all(value > 0 for value in each.values())
    assert "80% zeros" in capsys.readouterr().out


def test_without_kernels_it_says_why(monkeypatch):
    monkeypatch.setattr(kernels, "why_no_kernels", lambda: "they were not built")
    with pytest.raises(InputError, match="no kernels to time: they were not built"):
        benchmark_kernels(1, 1)
