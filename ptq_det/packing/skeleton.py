"""Builds the model that a packed file is for, not filled yet; and fills its layers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torchvision
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn
from torch.nn.modules import module as registration
from torch.overrides import TorchFunctionMode

from ..ternary.ternarize import make_plain
from .architecture import Architecture
from .container import PackedFileError
from .packed_layer import PackedLayer

__all__ = ["MOST_WEIGHTS", "bias_of", "build_skeleton", "fill_layer"]

MOST_WEIGHTS = 1 << 30  # that a packed file may claim
_MOST_MODULES = 5_000  # a ResNet-152 with cascaded heads has some hundred


class _WithoutRandomWeights(TorchFunctionMode):
    """Leaves out the filling of weights that are about to be replaced."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        in_init = getattr(function, "__module__", None) == "torch.nn.init"
        if in_init or function in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return function(*args, **(kwargs or {}))


def build_skeleton(
    architecture: Architecture, cfg: CfgNode | None, path: str, device: str = "cpu"
) -> nn.Module:
    """A plain model with arbitrary weights.

    Args:
        architecture: of the model.
        cfg: the config of a Detectron2 model; None for others.
        path: file that asks for it, for messages.
        device: "cpu", or "meta" for shapes alone, which takes neither memory nor time however
            large a file claims to be.

    Raises:
        PackedFileError: it cannot be built here, or has more weights or parts than a file may
            claim.
    """
    with torch.device(device), _WithoutRandomWeights(), _bounded(path):
        if architecture.is_detector:
            cfg.MODEL.DEVICE = device
            try:
                model = build_model(cfg)
            except PackedFileError:
                raise
            except Exception as error:  # values of a file can end anywhere in Detectron2's builders
                raise PackedFileError(
                    path,
                    f"its model cannot be built ({type(error).__name__}: {str(error)[:200]}); "
                    "import the plugin that registers it",
                ) from error
            make_plain(model)
            return model
        if architecture.name not in torchvision.models.list_models():
            raise PackedFileError(path, f"torchvision has no network {architecture.name!r} here")
        if not 0 < architecture.classes <= MOST_WEIGHTS:
            raise PackedFileError(path, f"it claims {architecture.classes} classes")
        return torchvision.models.get_model(
            architecture.name, weights=None, num_classes=architecture.classes
        )


@contextmanager
def _bounded(path: str) -> Iterator[None]:
    """Stop the building of a model of more modules or weights than a file may claim."""
    modules = weights = 0

    def count_module(module, name, child):
        nonlocal modules
        modules += 1
        if modules > _MOST_MODULES:
            raise PackedFileError(path, f"its model has more than {_MOST_MODULES} parts")

    def count_tensor(module, name, tensor):
        nonlocal weights
        weights += 0 if tensor is None else tensor.numel()
        if weights > MOST_WEIGHTS:
            raise PackedFileError(path, f"its model has more than {MOST_WEIGHTS} weights")

    handles = [
        registration.register_module_module_registration_hook(count_module),
        registration.register_module_parameter_registration_hook(count_tensor),
        registration.register_module_buffer_registration_hook(count_tensor),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


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
