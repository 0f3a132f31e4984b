"""Error compensation of a whole model, from the inputs that its layers get on training pictures."""

import copy
import itertools
import logging
from collections.abc import Iterable

import torch
from detectron2.utils import comm
from torch import nn
from tqdm import tqdm

from ..errors import InputError
from ..ternary.layers import TernaryLayer
from ..ternary.ternarize import restore_classes, ternary_layers, unwrap
from .inputs import LayerInputs, column_groups, has_plain_inputs, is_transposed, removes_mean
from .moments import InputMoments
from .solver import compensate, make_good

__all__ = ["compensate_model", "plain_copy"]

_Moments = tuple[InputMoments, InputMoments]  # of most pictures, and of those that judge them
_HELD = 4  # every so manieth batch judges
_STEPS = 8  # in which layers are compensated, each with the errors of those before it


@torch.no_grad()
def compensate_model(model: nn.Module, batches: Iterable[list[dict]], count: int) -> None:
    """Give ternary layers latent weights whose codes keep their outputs (:mod:`..compensation`).

    Layers are taken in the order in which a picture passes them, some at a time, and see the inputs
    that the ternary layers before them give; their outputs are to be those of the float model. A
    mean error of the outputs is added to the bias; batch norms that follow their batches remove it
    by themselves. Convolutions with groups, or whose padding has a name, stay as they are.
    Processes share what they saw, and end with the same weights.

    Args:
        model: with ternary layers whose latent weights are those of a float model; changed in
            place.
        batches: of training pictures.
        count: number of them to use.

    Raises:
        InputError: the inputs of a layer are not finite, or not to be worked with.
    """
    layers = {n: layer for n, layer in ternary_layers(model).items() if has_plain_inputs(layer)}
    exact, current = (plain_copy(model) for _ in range(2))
    inputs = LayerInputs(current, exact, list(itertools.islice(batches, count)))
    calls = inputs.calls(list(layers))
    errors = []
    progress = tqdm(calls, "Compensating", disable=not comm.is_main_process())
    for names in _steps(list(calls)):
        moments = _moments({name: layers[name] for name in names}, inputs, calls)
        for name in names:
            if any(each.count for each in moments[name][0]):  # pictures reached it
                errors.append(_compensated(name, layers[name], moments.pop(name)))
            _take_over(current.get_submodule(name), layers[name])
            progress.update()
    progress.close()
    before, after = torch.tensor(errors).mean(0).tolist() if errors else (0, 0)
    logging.getLogger("ptq_det").info(
        "Compensation: squared error of the outputs of %d layers %.3f -> %.3f (mean)",
        len(errors),
        before,
        after,
    )


def _compensated(name: str, layer: TernaryLayer, moments: list[_Moments]) -> tuple[float, float]:
    sums = itertools.chain(*(each.tensors() for pair in moments for each in pair))
    what = "are not finite"
    if all(bool(each.isfinite().all()) for each in sums):
        try:
            return _compensate_layer(layer, moments)
        except torch.linalg.LinAlgError:
            what = "are too far from zero mean"
    raise InputError(
        f"the inputs of {name} {what}, so that its error cannot be compensated. Look for weights "
        f"or pictures that hold no numbers, keep the layer in float (TERNARY.SKIP {name!r}), or "
        "set TERNARY.COMPENSATION 0"
    )


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy whose ternary layers have their former classes and their latent weights."""
    model = copy.deepcopy(unwrap(model))
    restore_classes(model)
    return model


def _steps(names: list[str]) -> list[list[str]]:
    size = max(1, -(-len(names) // _STEPS))
    return [names[i : i + size] for i in range(0, len(names), size)]


def _moments(layers, inputs: LayerInputs, calls) -> dict[str, list[_Moments]]:
    """Moments of the inputs of each layer, for each group of its columns."""
    moments = {}
    for name, layer in layers.items():
        groups = column_groups(layer)[: 1 if is_transposed(layer) else None]
        device = layer.weight.device
        moments[name] = [tuple(InputMoments(len(g), device) for _ in range(2)) for g in groups]
    for batch, name, own, exact in inputs.pairs({name: calls[name] for name in layers}):
        held = batch % _HELD == _HELD - 1
        if is_transposed(layers[name]):
            moments[name][0][held].add(own, exact)
            continue
        for each, columns in zip(moments[name], column_groups(layers[name]), strict=True):
            each[held].add(own[:, columns], exact[:, columns])
    if comm.get_world_size() > 1:
        for each in itertools.chain(*itertools.chain(*moments.values())):
            each.all_reduce()
    return moments


def _compensate_layer(layer: TernaryLayer, inputs: list[_Moments]) -> tuple[float, float]:
    columns = [each.to(layer.weight.device) for each in column_groups(layer)]
    if len(inputs) < len(columns):
        inputs = inputs * len(columns)
    centered = removes_mean(layer)
    weight = layer.to_filters(layer.weight).float().clone()
    wanted = weight.clone()
    for places, (fit, held) in zip(columns, inputs, strict=True):
        wanted[:, places] = make_good(weight[:, places], fit, held, centered)
    seen = [fit + held for fit, held in inputs]
    moments = [each.matrix(centered) for each in seen]
    state = layer.ternary
    found = compensate(wanted, columns, moments, state.sparsity, state.quantizer)
    layer.weight.copy_(layer.from_filters(found.latent))
    if layer.scale is not None:
        layer.start_scale()
    if layer.bias is not None:
        codes, scale = layer.codes_and_scale()
        value = state.quantizer.dequantize(codes, scale)
        means, means_lost = torch.empty_like(weight[0]), torch.empty_like(weight[0])
        for places, each in zip(columns, seen, strict=True):
            means[places], means_lost[places] = each.mean, each.mean_lost
        mean_error = (weight - value) @ means + weight @ means_lost
        # Of a transposed convolution, each output has only its own part of the kernel.
        layer.bias += mean_error / (len(columns) if is_transposed(layer) else 1)
    if comm.get_world_size() > 1:
        for parameter in layer.parameters(recurse=False):
            torch.distributed.broadcast(parameter.data, 0)
    return found.error_before, found.error


def _take_over(plain: nn.Module, layer: TernaryLayer) -> None:
    """Give a plain layer the weights that a ternary one works with."""
    codes, scale = layer.codes_and_scale()
    plain.weight.copy_(layer.from_filters(layer.ternary.quantizer.dequantize(codes, scale)))
    if layer.bias is not None:
        plain.bias.copy_(layer.bias)
