"""Builds the model that a packed file is for, not filled yet; and fills its layers."""

from collections.abc import Callable

import torch
import torchvision
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..ternary.ternarize import make_plain
from .architecture import Architecture
from .container import PackedFileError
from .packed_layer import PackedLayer

__all__ = ["bias_of", "build_skeleton", "fill_layer"]


class _WithoutRandomWeights(TorchFunctionMode):
    """Leaves out the filling of weights that are about to be replaced."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        in_init = getattr(function, "__module__", None) == "torch.nn.init"
        if in_init or function in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return function(*args, **(kwargs or {}))


def build_skeleton(
    architecture: Architecture, config: Callable[[], CfgNode], path: str
) -> nn.Module:
    """A plain model on the CPU with arbitrary weights.

    Args:
        architecture: of the model.
        config: gives the config of a Detectron2 model.
        path: file that asks for it, for messages.

    Raises:
        PackedFileError: it cannot be built here.
    """
    with _WithoutRandomWeights():
        if architecture.is_detector:
            cfg = config()
            cfg.MODEL.DEVICE = "cpu"
            try:
                model = build_model(cfg)
            except (KeyError, AssertionError, AttributeError, ValueError) as error:
                raise PackedFileError(
                    path,
                    f"its model cannot be built ({error}); import the plugin that registers it",
                ) from error
            make_plain(model)
            return model
        if architecture.name not in torchvision.models.list_models():
            raise PackedFileError(path, f"torchvision has no network {architecture.name!r} here")
        return torchvision.models.get_model(
            architecture.name, weights=None, num_classes=architecture.classes
        )


def bias_of(layer: PackedLayer) -> Tensor | None:
    """The float32 bias of a packed layer, or None."""
    bias = layer.float_bias()
    return None if bias is None else torch.from_numpy(bias)


def fill_layer(module: nn.Module, layer: PackedLayer) -> None:
    """Give a plain layer the weight of a packed one, and its bias if that has one."""
    module.weight = nn.Parameter(torch.from_numpy(layer.weight()), requires_grad=False)
    bias = bias_of(layer)
    if bias is not None:
        module.bias = nn.Parameter(bias, requires_grad=False)
