"""Moments of the inputs of a layer, summed over batches and processes."""

import torch
from torch import Tensor

__all__ = ["InputMoments"]


class InputMoments:
    """Mean and second moments of the inputs that some weights of a filter are multiplied with.

    And of what these inputs lack to those that the filter would get in the float model.

    Args:
        size: number C of these weights.
        device: where the moments are kept.

    Attributes:
        count: number of samples ``()``.
        sum: of the samples ``(C,)``.
        products: sum of the products of each two inputs ``(C, C)``.
        lost_sum: of what the samples lack ``(C,)``.
        lost_products: sum of the products of what an input (row) lacks and each input (column)
            ``(C, C)``.
    """

    def __init__(self, size: int, device: torch.device | None = None):
        self.count = torch.zeros((), device=device)
        self.sum = torch.zeros(size, device=device)
        self.products = torch.zeros(size, size, device=device)
        self.lost_sum = torch.zeros(size, device=device)
        self.lost_products = torch.zeros(size, size, device=device)

    def add(self, inputs: Tensor, exact: Tensor | None = None) -> None:
        """Take note of inputs ``(samples, C)``, and of those of the float model if they differ."""
        inputs = inputs.float()
        self.count += len(inputs)
        self.sum += inputs.sum(0)
        self.products.addmm_(inputs.T, inputs)
        if exact is not None:
            lost = exact.float() - inputs
            self.lost_sum += lost.sum(0)
            self.lost_products.addmm_(lost.T, inputs)

    def __add__(self, other: "InputMoments") -> "InputMoments":
        result = InputMoments(len(self.sum), self.sum.device)
        for total, *parts in zip(result.tensors(), self.tensors(), other.tensors(), strict=True):
            total.copy_(parts[0]).add_(parts[1])
        return result

    def tensors(self) -> list[Tensor]:
        """All sums, for processes to add."""
        return [self.count, self.sum, self.products, self.lost_sum, self.lost_products]

    @property
    def mean(self) -> Tensor:
        """``(C,)``"""
        return self.sum / self.count

    @property
    def mean_lost(self) -> Tensor:
        """``(C,)``"""
        return self.lost_sum / self.count

    def matrix(self, centered: bool) -> Tensor:
        """Second moments ``(C, C)``, about the mean or about 0."""
        moments = self.products / self.count
        return moments.addr_(self.mean, self.mean, alpha=-1) if centered else moments

    def lost_matrix(self, centered: bool) -> Tensor:
        """Second moments ``(C, C)`` of what inputs lack and inputs."""
        moments = self.lost_products / self.count
        return moments.addr_(self.mean_lost, self.mean, alpha=-1) if centered else moments
