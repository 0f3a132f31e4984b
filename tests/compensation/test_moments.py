import os

import pytest
import torch
from detectron2.engine import launch
from detectron2.utils import comm

from ptq_det.compensation.moments import InputMoments
from ptq_det.training.processes import leave_process_group
from tests.compensation.inputs import correlated_inputs, inputs_and_exact, moments_of


def test_moments(device):
    x = correlated_inputs(8, device=device)
    torch.testing.assert_close(moments_of(x), x.T.cov(correction=0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(moments_of(x, False), x.T @ x / len(x), rtol=1e-3, atol=1e-3)


def test_moments_of_what_inputs_lack(device):
    exact = correlated_inputs(6, device=device)
    x = 0.9 * exact + 0.2 * torch.randn_like(exact)
    moments = InputMoments(6, x.device)
    moments.add(x[:99], exact[:99])
    moments.add(x[99:], exact[99:])
    torch.testing.assert_close(moments.mean_lost, (exact - x).mean(0), rtol=1e-3, atol=1e-3)
    wanted = (exact - x).T @ x / len(x)
    torch.testing.assert_close(moments.lost_matrix(False), wanted, rtol=1e-3, atol=1e-3)
    wanted = wanted - torch.outer((exact - x).mean(0), x.mean(0))
    torch.testing.assert_close(moments.lost_matrix(True), wanted, rtol=1e-3, atol=1e-3)


def test_sums_of_moments(device):
    x, exact = torch.randn(2, 50, 3, device=device)
    both = inputs_and_exact(x[:20], exact[:20]) + inputs_and_exact(x[20:], exact[20:])
    for found, wanted in zip(both.tensors(), inputs_and_exact(x, exact).tensors(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_moments_of_nothing(device):
    none = InputMoments(3, device) + InputMoments(3, device)
    none.add(torch.empty(0, 3, device=device))
    assert none.count == 0 and not any(tensor.any() for tensor in none.tensors())


@pytest.mark.parametrize("mean", [300.0, -1e4])
def test_inputs_far_from_zero_keep_their_variance(mean, device):
    x = correlated_inputs(8, device=device)
    found = moments_of(x + mean)
    wanted = (x + mean).double().T.cov(correction=0).float()
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def _reduce(folder, device):
    torch.set_num_threads(1)
    rank = comm.get_rank()
    x, exact = (each.to(device) for each in torch.load(f"{folder}/x.pt"))
    own = slice(0, 30) if rank == 0 else slice(30, 100)
    moments = inputs_and_exact(x[own], exact[own])
    moments.all_reduce()
    torch.save([each.cpu() for each in moments.tensors()], f"{folder}/{rank}.pt")
    leave_process_group()


@pytest.mark.device
def test_moments_of_several_processes(tmp_path, two_processes):
    x = correlated_inputs(4, 100) + 50
    exact = 1.1 * x + torch.randn_like(x)
    torch.save((x, exact), tmp_path / "x.pt")
    launch(_reduce, 2, dist_url="auto", args=(os.fspath(tmp_path), two_processes))
    wanted = inputs_and_exact(x, exact).tensors()
    for rank in (0, 1):
        for found, want in zip(torch.load(tmp_path / f"{rank}.pt"), wanted, strict=True):
            torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-2)
