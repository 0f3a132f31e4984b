"""Error compensation of a whole model, from the inputs that its layers get on training pictures."""

import copy
import itertools
import logging
import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from tqdm import tqdm

from ..compensation import InputMoments, compensate
from ..convert import make_plain, ternary_layers, unwrap
from ..layers import TernaryLayer

__all__ = ["compensate_model"]

_SAMPLES = 1024  # inputs of a layer that are kept of a batch
_CHUNK = 4608  # weights of a filter whose inputs are compared: the 3 × 3 × 512 of a ResNet's res5


@torch.no_grad()
def compensate_model(model: nn.Module, batches: Iterable[list[dict]], count: int) -> None:
    """Give ternary layers latent weights whose codes keep their outputs (:mod:`..compensation`).

    Layers see the inputs that those of the float model have. A mean error of their outputs is
    added to the bias; batch norms that follow their batches remove it by themselves. Convolutions
    with groups, or whose padding has a name, stay as they are. Processes share what they saw, and
    end with the same weights.

    Args:
        model: with ternary layers whose latent weights are those of a float model; changed in
            place.
        batches: of training pictures.
        count: number of them to use.
    """
    layers = {
        name: layer
        for name, layer in ternary_layers(model).items()
        if getattr(layer, "groups", 1) == 1 and not isinstance(getattr(layer, "padding", 0), str)
    }
    inputs = _watch(unwrap(model), layers, itertools.islice(batches, count), count)
    before, after = [], []
    for name, layer in tqdm(layers.items(), "Compensating", disable=not comm.is_main_process()):
        if inputs[name][0].count == 0:
            continue  # no picture reached it
        errors = _compensate_layer(layer, inputs.pop(name))
        before.append(errors[0])
        after.append(errors[1])
    logging.getLogger("ptq_det").info(
        "Compensation: squared error of the outputs of %d layers %.3f -> %.3f (mean)",
        len(before),
        sum(before) / max(1, len(before)),
        sum(after) / max(1, len(after)),
    )


def _watch(model, layers, batches, count) -> dict[str, list[InputMoments]]:
    """Moments of the inputs of each layer, one for each group of its weights (:func:`_columns`)."""
    model = copy.deepcopy(model)
    make_plain(model)
    model.train()
    modules = dict(model.named_modules())
    inputs = {
        name: [
            InputMoments(len(columns), layer.weight.device)
            for columns in _columns(layer)[: 1 if _is_transposed(layer) else None]
        ]
        for name, layer in layers.items()
    }
    generator = torch.Generator().manual_seed(0)

    def watch(name):
        def note(module, args):
            samples = _samples(module, args[0], generator)
            if _is_transposed(module):
                inputs[name][0].add(samples)
                return
            for moments, columns in zip(inputs[name], _columns(module), strict=True):
                moments.add(samples[:, columns])

        return note

    for name in layers:
        modules[name].register_forward_pre_hook(watch(name))
    batches = tqdm(batches, "Watching layers", count, disable=not comm.is_main_process())
    with EventStorage():
        for batch in batches:
            model(batch)
    if comm.get_world_size() > 1:
        for moments in itertools.chain.from_iterable(inputs.values()):
            for tensor in (moments.count, moments.sum, moments.products):
                torch.distributed.all_reduce(tensor)
    return inputs


def _samples(module: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
    """Inputs ``(samples, C)`` of single outputs of a layer, at random places."""
    if isinstance(module, nn.Linear):
        x = x.reshape(-1, x.shape[-1])
        return x[_places(len(x), generator)]
    if _is_transposed(module):
        x = x.movedim(1, -1)
        return x.reshape(-1, x.shape[-1])[_places(x[..., 0].numel(), generator)]
    (top, left), (down, right) = module.padding, module.stride
    x = F.pad(x, (left, left, top, top))
    reach = [d * (k - 1) + 1 for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    windows = x.unfold(2, reach[0], down).unfold(3, reach[1], right)
    windows = windows[..., :: module.dilation[0], :: module.dilation[1]]
    n, _, height, width = windows.shape[:4]
    place = _places(n * height * width, generator).to(x.device)
    picture, row, column = place // (height * width), place // width % height, place % width
    return windows[picture, :, row, column].flatten(1)


def _places(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(count, (min(count, _SAMPLES),), generator=generator)


def _is_transposed(module: nn.Module) -> bool:
    return isinstance(module, nn.ConvTranspose2d)


def _columns(layer: nn.Module) -> list[Tensor]:
    """Columns of a layer's filters in groups whose inputs are looked at together.

    Those of a transposed convolution are multiplied with the same inputs for different outputs.
    """
    weight = layer.weight
    if _is_transposed(layer):
        inputs, kernel = len(weight), weight[0, 0].numel()
        return list(torch.arange(inputs * kernel).reshape(inputs, kernel).T)
    size = weight[0].numel()
    return list(torch.arange(size).tensor_split(math.ceil(size / _CHUNK)))


def _compensate_layer(layer: TernaryLayer, inputs: list[InputMoments]) -> tuple[float, float]:
    columns = [each.to(layer.weight.device) for each in _columns(layer)]
    if len(inputs) < len(columns):
        inputs = inputs * len(columns)
    norm = getattr(layer, "norm", None)
    removes_mean = layer.bias is not None or isinstance(norm, nn.modules.batchnorm._BatchNorm)
    moments = [each.matrix(removes_mean) for each in inputs]
    weight = layer.to_filters(layer.weight).float().clone()
    state = layer.ternary
    found = compensate(weight, columns, moments, state.sparsity, state.quantizer.by_filter)
    layer.weight.copy_(layer.from_filters(found.latent))
    if layer.scale is not None:
        layer.start_scale()
    if layer.bias is not None:
        codes, scale = layer.codes_and_scale()
        lost = weight - state.quantizer.dequantize(codes, scale)
        means = torch.empty(weight.shape[1], device=weight.device)
        for places, each in zip(columns, inputs, strict=True):
            means[places] = each.mean
        mean_error = lost @ means
        # Of a transposed convolution, each output has only its own part of the kernel.
        layer.bias += mean_error / (len(columns) if _is_transposed(layer) else 1)
    if comm.get_world_size() > 1:
        for parameter in layer.parameters(recurse=False):
            torch.distributed.broadcast(parameter.data, 0)
    return found.error_before, found.error
