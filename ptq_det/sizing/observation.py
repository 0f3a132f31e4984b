"""What layers get on training pictures, and how much the loss hangs on what they give."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..compensation.inputs import own_randomness, samples_of
from ..ternary.layers import is_layer

__all__ = ["Observation", "end_of", "observe"]

_SAMPLES = 2048  # inputs of a layer that are kept in all


@dataclass
class Observation:
    """What a layer was seen to do.

    Attributes:
        inputs: of single outputs, at random places ``(samples, C)``.
        weight: of each output channel ``(F,)``: curvature of the loss of a batch, summed over all
            places of the output and averaged over the batches.
    """

    inputs: Tensor
    weight: Tensor


def observe(
    model: nn.Module, names: list[str], batches: Iterable[list[dict]]
) -> dict[str, Observation]:
    """Run a float model on batches, forward and backward, as in training.

    Curvature is that of empirical Fisher: squares of gradients at single outputs, summed over the
    terms (boxes, pixels, anchors) that losses are means of. One backward pass has them all: each
    term goes back with a sign of its own, so that products of two of them cancel on average, and
    √n times, since a term has 1/n of the loss.

    Args:
        model: of plain classes; its gradients and the statistics of its norms are changed.
        names: of the layers to look at.
        batches: of training pictures.

    Returns:
        What was seen of each layer that a picture reached.
    """
    model.train().requires_grad_(True)
    layers = {name: model.get_submodule(name) for name in names}
    batches = list(batches)
    share = max(1, _SAMPLES // max(1, len(batches)))
    inputs: dict[str, list[Tensor]] = {}
    weights: dict[str, Tensor] = {}
    for index, batch in enumerate(batches):
        generator = torch.Generator().manual_seed(index)
        products = _Products(model)
        with own_randomness(model), EventStorage():
            torch.manual_seed(index)
            with products:
                losses = model(batch)
        ends = [end_of(loss, products.outputs(), generator) for loss in losses.values()]
        for name, layer in layers.items():
            calls = products.seen.get(layer, [])
            for _, output in calls:
                output.register_hook(_adder(weights, name, layer, len(batches)))
            if calls:
                found = [samples_of(layer, x.detach(), generator) for x, _ in calls]
                inputs.setdefault(name, []).append(_some(torch.cat(found), share, generator))
        pairs = [pair for end in ends for pair in end]
        torch.autograd.backward([y for y, _ in pairs], [grad for _, grad in pairs])
        model.zero_grad()
    found = {name: torch.cat(each).float() for name, each in inputs.items()}
    return {n: Observation(found[n], weights[n]) for n in names if n in weights and len(found[n])}


def end_of(
    loss: Tensor, outputs: Iterable[tuple[nn.Module, list[Tensor]]], generator: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """Outputs of the last layer that a loss hangs on, and gradients to go back from there with.

    They are those of the loss times √n at each place, with random signs. n = (Σ‖g‖)² / Σ‖g‖² over
    the places is how many terms the loss is the mean of.

    Args:
        loss: ``()``.
        outputs: of layers, from the last on.
        generator: of the signs.
    """
    for layer, of_layer in outputs if loss.requires_grad else ():
        grads = torch.autograd.grad(loss, of_layer, retain_graph=True, allow_unused=True)
        found = [(y, grad) for y, grad in zip(of_layer, grads, strict=True) if grad is not None]
        if not found:
            continue
        sizes = torch.cat([_rows(layer, grad).norm(dim=1) for _, grad in found])
        squares = float(sizes.square().sum())
        factor = float(sizes.sum()) / squares**0.5 if squares > 0 else 1.0
        return [(y, factor * grad * _signs(layer, grad, generator)) for y, grad in found]
    return []


def _signs(layer: nn.Module, tensor: Tensor, generator: torch.Generator) -> Tensor:
    """1 or −1 for each place of an output of a layer."""
    channels = -1 if isinstance(layer, nn.Linear) else 1
    shape = tensor.narrow(channels, 0, 1).shape
    return (1 - 2 * torch.randint(2, shape, generator=generator)).to(tensor)


class _Products(TorchFunctionMode):
    """Takes note of what layers are called with and give, before norm and activation.

    Attributes:
        seen: inputs and outputs of each call, by layer, in the order of the first calls.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self._layers = {id(m.weight): m for m in model.modules() if is_layer(m)}
        self.seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        layer = self._layers.get(id(args[1])) if len(args) > 1 else None
        if layer is not None and isinstance(output, Tensor) and output.requires_grad:
            self.seen.setdefault(layer, []).append((args[0], output))
        return output

    def outputs(self) -> list[tuple[nn.Module, list[Tensor]]]:
        """Outputs of each layer, from the last layer on."""
        return [(layer, [y for _, y in calls]) for layer, calls in reversed(self.seen.items())]


def _rows(layer: nn.Module, tensor: Tensor) -> Tensor:
    """An output of a layer ``(places, F)``."""
    tensor = tensor.detach().float().movedim(-1 if isinstance(layer, nn.Linear) else 1, -1)
    return tensor.reshape(-1, tensor.shape[-1])


def _adder(weights: dict[str, Tensor], name: str, layer: nn.Module, count: int) -> Callable:
    def add(grad):
        found = _rows(layer, grad).square().sum(0) / count
        weights[name] = weights[name] + found if name in weights else found

    return add


def _some(samples: Tensor, most: int, generator: torch.Generator) -> Tensor:
    return samples[torch.randperm(len(samples), generator=generator)[:most].to(samples.device)]
