import os

import pytest
import torch
from detectron2.engine import launch
from detectron2.utils import comm

from ptq_det.compensation.moments import InputMoments
from ptq_det.training.processes import leave_process_group
from tests.compensation.inputs import correlated_inputs, inputs_and_exact, moments_of


def test_moments():
    x = correlated_inputs(8)
    torch.testing.assert_close(moments_of(x), x.T.cov(correction=0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(moments_of(x, False), x.T @ x / len(x), rtol=1e-3, atol=1e-3)


def test_moments_of_what_inputs_lack():
    exact = correlated_inputs(6)
    x = 0.9 * exact + 0.2 * torch.randn_like(exact)
    moments = InputMoments(6)
    moments.add(x[:99], exact[:99])
    moments.add(x[99:], exact[99:])
    torch.testing.assert_close(moments.mean_lost, (exact - x).mean(0), rtol=1e-3, atol=1e-3)
    wanted = (exact - x).T @ x / len(x)
    torch.testing.assert_close(moments.lost_matrix(False), wanted, rtol=1e-3, atol=1e-3)
    wanted = wanted - torch.outer((exact - x).mean(0), x.mean(0))
    torch.testing.assert_close(moments.lost_matrix(True), wanted, rtol=1e-3, atol=1e-3)


def test_sums_of_moments():
    x, exact = torch.randn(2, 50, 3)
    both = inputs_and_exact(x[:20], exact[:20]) + inputs_and_exact(x[20:], exact[20:])
    for found, wanted in zip(both.tensors(), inputs_and_exact(x, exact).tensors(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_moments_of_nothing():
    none = InputMoments(3) + InputMoments(3)
    none.add(torch.empty(0, 3))
    assert none.count == 0 and not any(tensor.any() for tensor in none.tensors())


@pytest.mark.parametrize("mean", [300.0, -1e4])
def test_inputs_far_from_zero_keep_their_variance(mean):
    x = correlated_inputs(8)
    found = moments_of(x + mean)
    wanted = (x + mean).double().T.cov(correction=0).float()
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def _reduce(folder):
    torch.set_num_threads(1)
    rank = comm.get_rank()
    x, exact = torch.load(f"{folder}/x.pt")
    own = slice(0, 30) if rank == 0 else slice(30, 100)
    moments = inputs_and_exact(x[own], exact[own])
    moments.all_reduce()
    torch.save(moments.tensors(), f"{folder}/{rank}.pt")
    leave_process_group()


def test_moments_of_several_processes(tmp_path):
    x = correlated_inputs(4, 100) + 50
    exact = 1.1 * x + torch.randn_like(x)
    torch.save((x, exact), tmp_path / "x.pt")
    launch(_reduce, 2, dist_url="auto", args=(os.fspath(tmp_path),))
    wanted = inputs_and_exact(x, exact).tensors()
    for rank in (0, 1):
        for found, want in zip(torch.load(tmp_path / f"{rank}.pt"), wanted, strict=True):
            torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-2)
