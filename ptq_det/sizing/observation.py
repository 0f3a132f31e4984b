"""What layers get on training pictures, and how much the loss hangs on what they give."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..compensation.inputs import own_randomness, samples_of

__all__ = ["Observation", "observe"]

_SAMPLES = 2048  # inputs of a layer that are kept in all


@dataclass
class Observation:
    """What a layer was seen to do.

    Attributes:
        inputs: of single outputs, at random places ``(samples, C)``.
        weight: of each output channel ``(F,)``: squared gradients of the loss of a batch, summed
            over all places of the output and averaged over the batches.
    """

    inputs: Tensor
    weight: Tensor


def observe(
    model: nn.Module, names: list[str], batches: Iterable[list[dict]]
) -> dict[str, Observation]:
    """Train-mode passes through a float model, forward and backward.

    Args:
        model: of plain classes; its gradients and the statistics of its norms are changed.
        names: of the layers to look at.
        batches: of training pictures.

    Returns:
        What was seen of each layer that a picture reached.
    """
    model.train().requires_grad_(True)
    layers = {id(model.get_submodule(name).weight): name for name in names}
    batches = list(batches)
    share = max(1, _SAMPLES // max(1, len(batches)))
    inputs: dict[str, list[Tensor]] = {}
    weights: dict[str, Tensor] = {}
    for index, batch in enumerate(batches):
        own: dict[str, list[Tensor]] = {}
        generator = torch.Generator().manual_seed(index)

        def note(name, x, output, own=own, generator=generator):
            module = model.get_submodule(name)
            own.setdefault(name, []).append(samples_of(module, x.detach(), generator))

            def add(grad):
                channels = -1 if isinstance(module, nn.Linear) else 1
                squares = grad.detach().float().square().movedim(channels, -1)
                found = squares.reshape(-1, squares.shape[-1]).sum(0) / len(batches)
                weights[name] = weights[name] + found if name in weights else found

            output.register_hook(add)

        with own_randomness(model), EventStorage(), _Watch(layers, note):
            torch.manual_seed(index)
            losses = model(batch)
        sum(losses.values()).backward()
        model.zero_grad()
        for name, found in own.items():
            found = torch.cat(found)
            chosen = torch.randperm(len(found), generator=generator)[:share]
            inputs.setdefault(name, []).append(found[chosen.to(found.device)])
    return {
        name: Observation(torch.cat(inputs[name]).float(), weights[name])
        for name in names
        if name in weights and sum(map(len, inputs[name]))
    }


class _Watch(TorchFunctionMode):
    """Tells of each product with the weight of a layer, before norm and activation."""

    def __init__(self, layers: dict[int, str], note):
        super().__init__()
        self._layers, self._note = layers, note

    def __torch_function__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        name = self._layers.get(id(args[1])) if len(args) > 1 else None
        if name is not None and isinstance(output, Tensor) and output.requires_grad:
            self._note(name, args[0], output)
        return output
