"""Moments of the inputs of a layer, over batches and processes."""

import torch
from torch import Tensor

__all__ = ["InputMoments"]


class InputMoments:
    """Mean and second moments of the inputs that some weights of a filter are multiplied with.

    And of what these inputs lack to those that the filter would get in the float model. Products
    are of deviations from the mean, which moves as batches come (Chan, Golub and LeVeque, Updating
    formulae and a pairwise algorithm for computing sample variances, 1979, equation 2.1): those
    about 0 of inputs far from 0 would leave nothing but rounding when the mean is taken off.

    Args:
        size: number C of these weights.
        device: where the moments are kept.

    Attributes:
        count: number of samples ``()``.
        mean: of the samples ``(C,)``.
        products: sum of the products of the deviations of each two inputs ``(C, C)``.
        mean_lost: of what the samples lack ``(C,)``.
        lost_products: sum of the products of the deviations of what an input (row) lacks and of
            each input (column) ``(C, C)``.
    """

    def __init__(self, size: int, device: torch.device | None = None):
        self.count = torch.zeros((), device=device)
        self.mean = torch.zeros(size, device=device)
        self.products = torch.zeros(size, size, device=device)
        self.mean_lost = torch.zeros(size, device=device)
        self.lost_products = torch.zeros(size, size, device=device)

    def add(self, inputs: Tensor, exact: Tensor | None = None) -> None:
        """Take note of inputs ``(samples, C)``, and of those of the float model if they differ."""
        if not len(inputs):
            return
        inputs = inputs.float()
        batch = InputMoments(0, inputs.device)
        batch.count += len(inputs)
        batch.mean = inputs.mean(0)
        deviations = inputs - batch.mean
        batch.products = deviations.T @ deviations
        batch.mean_lost = torch.zeros_like(self.mean_lost)
        batch.lost_products = self.lost_products.new_zeros(())
        if exact is not None:
            lost = exact.float() - inputs
            batch.mean_lost = lost.mean(0)
            batch.lost_products = (lost - batch.mean_lost).T @ deviations
        self._join(batch)

    def _join(self, other: "InputMoments") -> None:
        count = self.count + other.count
        share = other.count / count.clamp(min=1)
        moved, moved_lost = other.mean - self.mean, other.mean_lost - self.mean_lost
        weight = self.count * share
        self.products += other.products
        self.products += torch.outer(weight * moved, moved)
        self.lost_products += other.lost_products
        self.lost_products += torch.outer(weight * moved_lost, moved)
        self.mean += share * moved
        self.mean_lost += share * moved_lost
        self.count = count

    def __add__(self, other: "InputMoments") -> "InputMoments":
        result = InputMoments(len(self.mean), self.mean.device)
        result._join(self)
        result._join(other)
        return result

    def all_reduce(self) -> None:
        """Become those of the inputs of all processes."""
        own, mean, mean_lost = self.count, self.mean, self.mean_lost
        self.count = _summed(own.clone())
        share = own / self.count.clamp(min=1)
        self.mean, self.mean_lost = _summed(share * mean), _summed(share * mean_lost)
        moved, moved_lost = mean - self.mean, mean_lost - self.mean_lost
        self.products = _summed(self.products + torch.outer(own * moved, moved))
        self.lost_products = _summed(self.lost_products + torch.outer(own * moved_lost, moved))

    def tensors(self) -> list[Tensor]:
        """All that is kept."""
        return [self.count, self.mean, self.products, self.mean_lost, self.lost_products]

    def matrix(self, centered: bool) -> Tensor:
        """Second moments ``(C, C)``, about the mean or about 0."""
        moments = self.products / self.count
        return moments if centered else moments.addr_(self.mean, self.mean)

    def lost_matrix(self, centered: bool) -> Tensor:
        """Second moments ``(C, C)`` of what inputs lack and inputs."""
        moments = self.lost_products / self.count
        return moments if centered else moments.addr_(self.mean_lost, self.mean)


def _summed(tensor: Tensor) -> Tensor:
    """Over all processes, in place."""
    torch.distributed.all_reduce(tensor)
    return tensor
