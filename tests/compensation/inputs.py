"""Inputs of a layer and their moments, for tests."""

import torch

from ptq_det.compensation.moments import InputMoments


def correlated_inputs(size, samples=4000, device="cpu"):
    mixed = torch.randn(samples, size // 4) @ torch.randn(size // 4, size)
    return (mixed + 0.3 * torch.randn(samples, size) + 1.0).to(device)


def moments_of(x, centered=True):
    moments = InputMoments(x.shape[1], x.device)
    for part in x.split(999):
        moments.add(part)
    return moments.matrix(centered)


def inputs_and_exact(x, exact):
    moments = InputMoments(x.shape[1], x.device)
    moments.add(x, exact)
    return moments
