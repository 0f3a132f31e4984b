"""Whether a model's layers are faster by oneDNN's integers than on the kernels, on this CPU.

Without VNNI they are not, whatever the layer (docs/results.md). With VNNI or AMX it depends on CPU
and zeros, so it is measured.
"""

import time
from collections.abc import Callable

import torch
from torch import nn

from ...kernels import Map, Maps
from ..int8.layers import Int8Conv2d, Int8Weights, saturates
from ..ranges import Quantization
from .layers import SparseConv2d

__all__ = ["faster_by_onednn", "seconds_of_layers"]

_SIZE = (256, 320)  # of the picture whose maps are timed
_ROUNDS = 3


def faster_by_onednn(model: nn.Module) -> float:
    """How many times as fast the layers of a model's body are by oneDNN as on the kernels.

    Args:
        model: on the kernels; a whole detector.
    """
    if saturates():
        return 0.0
    kernels, onednn = seconds_of_layers(model)
    return kernels / onednn


@torch.no_grad()
def seconds_of_layers(model: nn.Module) -> tuple[float, float]:
    """Seconds of all convolutions before the heads, on the kernels and by oneDNN."""
    head = getattr(model, "proposal_generator", None)
    head = model.head if head is None else head.rpn_head
    calls: list[tuple[SparseConv2d, tuple[int, ...], int, int]] = []
    handles = [
        module.register_forward_pre_hook(
            lambda module, args: calls.append((module, args[0].shape, args[0].low, args[0].high))
        )
        for part in (model.backbone, head)
        for module in part.modules()
        if isinstance(module, SparseConv2d)
    ]
    features = model.backbone(torch.zeros(1, 3, *_SIZE))
    names = getattr(model, "head_in_features", None) or model.proposal_generator.in_features
    head([features[name] for name in names])
    for handle in handles:
        handle.remove()
    kernels = onednn = 0.0
    for layer, shape, low, high in calls:
        x = Map(shape, low, high, Maps())
        x.memory[:] = 0
        kernels += _least(lambda layer=layer, x=x: layer(x, keep=True))
        onednn += _least(_by_onednn(layer, shape))
    return kernels, onednn


def _by_onednn(layer: SparseConv2d, shape: tuple[int, ...]) -> Callable[[], object]:
    """A layer of the same shapes; how long it takes does not depend on the weights."""
    kernel, steps = layer.kernel, Quantization(1.0, 0)
    filters, inputs, *size = kernel.codes_shape
    weights = Int8Weights(
        torch.ones(filters, inputs, *size, dtype=torch.int8), torch.ones(filters), None
    )
    places = dict(stride=kernel.stride, padding=kernel.padding, dilation=kernel.dilation)
    geometry = nn.Conv2d(inputs, filters, tuple(size), device="meta", **places)
    made = Int8Conv2d(weights, geometry, steps, steps)
    x = torch.zeros(shape, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    return lambda: made(x)


def _least(run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        found = run()
        seconds.append(time.perf_counter() - start)
        if isinstance(found, Map):
            found.free()
    return min(seconds)
