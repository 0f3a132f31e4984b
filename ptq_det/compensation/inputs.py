"""The inputs that layers get in two models at once, on the same pictures and the same boxes."""

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from ..ternary.layers import DEFORMABLE

__all__ = [
    "LayerInputs",
    "column_groups",
    "has_plain_inputs",
    "is_transposed",
    "own_randomness",
    "removes_mean",
    "samples_of",
]

_SAMPLES = 1024  # inputs of a layer that are kept of a batch
_CHUNK = 4608  # weights of a filter whose inputs are compared: the 3 × 3 × 512 of a ResNet's res5


def is_transposed(module: nn.Module) -> bool:
    """Whether it is a transposed convolution."""
    return isinstance(module, nn.ConvTranspose2d)


def has_plain_inputs(layer: nn.Module) -> bool:
    """Whether the inputs of a layer's outputs can be looked at: not of groups, nor of a padding
    that has a name."""
    return (
        getattr(layer, "groups", 1) == 1
        and not isinstance(getattr(layer, "padding", 0), str)
        and not isinstance(layer, DEFORMABLE)  # whose inputs are where other layers say
    )


def removes_mean(layer: nn.Module) -> bool:
    """Whether a mean error of a layer's outputs is taken away: by a bias that can make it good, or
    by a norm of its batches."""
    norm = getattr(layer, "norm", None)
    return layer.bias is not None or isinstance(norm, nn.modules.batchnorm._BatchNorm)


def column_groups(layer: nn.Module) -> list[Tensor]:
    """Columns of a layer's filters in groups whose inputs are looked at together.

    Those of a transposed convolution are multiplied with the same inputs for different outputs.
    """
    weight = layer.weight
    if is_transposed(layer):
        inputs, kernel = len(weight), weight[0, 0].numel()
        return list(torch.arange(inputs * kernel).reshape(inputs, kernel).T)
    size = weight[0].numel()
    return list(torch.arange(size).tensor_split(math.ceil(size / _CHUNK)))


class _Seen(Exception):
    """Raised to end a forward that has been through all layers that are looked at."""


class LayerInputs:
    """Runs a model, and its float original beside it, for the inputs of some of its layers.

    Both see the same pictures. Where a ``proposal_generator`` proposes boxes, the float model takes
    those of the other one, and both sample them alike, so that inputs can be compared.

    Args:
        model: with the layers' plain classes; runs as in training.
        exact: of the same architecture.
        batches: of training pictures.
    """

    def __init__(self, model: nn.Module, exact: nn.Module, batches: list[list[dict]]):
        self._models = (model.train(), exact.train())
        self._batches = batches

    def calls(self, names: list[str]) -> Counter:
        """How often each layer is called for a batch, in the order of the first calls."""
        counts = Counter()

        def count(name, module, x):
            counts[name] += 1

        for batch in self._batches[:1]:
            self._run(self._models[1], batch, 0, names, count)
        return counts

    def pairs(self, calls: dict[str, int]) -> Iterator[tuple[int, str, Tensor, Tensor]]:
        """Number of a batch, name of a layer, and samples of its inputs in both ``(samples, C)``.

        Where the two models disagree about the number of inputs, the first model's stand for both.

        Args:
            calls: how often each of the layers is called.
        """
        for index, batch in enumerate(self._batches):
            found: tuple[dict[str, list[Tensor]], ...] = ({}, {})
            proposals = None
            for model, samples in zip(self._models, found, strict=True):
                generators = {name: torch.Generator().manual_seed(index) for name in calls}

                def note(name, module, x, samples=samples, generators=generators):
                    samples.setdefault(name, []).append(samples_of(module, x, generators[name]))
                    done = all(len(samples.get(each, ())) >= calls[each] for each in calls)
                    if done:
                        raise _Seen

                proposals = self._run(model, batch, index, list(calls), note, proposals)
            for name, inputs in found[0].items():
                exact = found[1].get(name, [])
                if [len(x) for x in inputs] != [len(x) for x in exact]:
                    exact = inputs
                yield index, name, torch.cat(inputs), torch.cat(exact)

    def _run(self, model, batch, seed, names, note: Callable, proposals=None):
        """Forward of a batch; gives the proposals that were made."""
        made = []

        def propose(module, args, output):
            made.append(output[0])
            return None if proposals is None else (proposals, *output[1:])

        def watch(name):
            return lambda module, args: note(name, module, args[0])

        modules = dict(model.named_modules())
        handles = [modules[name].register_forward_pre_hook(watch(name)) for name in names]
        if "proposal_generator" in modules:
            handles.append(modules["proposal_generator"].register_forward_hook(propose))
        if "roi_heads" in modules:
            handles.append(modules["roi_heads"].register_forward_pre_hook(lambda *_: _seed(seed)))
        try:
            with own_randomness(model), EventStorage(), contextlib.suppress(_Seen):
                _seed(seed)
                model(batch)
        finally:
            for handle in handles:
                handle.remove()
        return made[0] if made else None


def _seed(seed: int) -> None:
    torch.manual_seed(seed)


def own_randomness(model: nn.Module):
    device = next(model.parameters()).device
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def samples_of(module: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
    """Inputs ``(samples, C)`` of single outputs of a layer, at random places."""
    if isinstance(module, nn.Linear):
        x = x.reshape(-1, x.shape[-1])
        return x[_places(len(x), generator)]
    if is_transposed(module):
        x = x.movedim(1, -1)
        return x.reshape(-1, x.shape[-1])[_places(x[..., 0].numel(), generator)]
    geometry = (module.padding, module.stride, module.dilation, module.kernel_size)
    if isinstance(module, nn.Conv1d):  # a picture of one row
        x = x.unsqueeze(2)
        geometry = [(one, *of) for one, of in zip((0, 1, 1, 1), geometry, strict=True)]
    (top, left), (down, right), dilation, kernel = geometry
    x = F.pad(x, (left, left, top, top))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    windows = x.unfold(2, reach[0], down).unfold(3, reach[1], right)
    windows = windows[..., :: dilation[0], :: dilation[1]]
    n, _, height, width = windows.shape[:4]
    place = _places(n * height * width, generator).to(x.device)
    picture, row, column = place // (height * width), place // width % height, place % width
    return windows[picture, :, row, column].flatten(1)


def _places(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(max(1, count), (min(count, _SAMPLES),), generator=generator)
