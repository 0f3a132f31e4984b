"""Builds the model that a packed file is for, not filled yet; and fills its layers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torchvision
from detectron2.config import CfgNode
from detectron2.layers import ROIAlignRotated
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator, RotatedAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformRotated
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.rrpn import RRPN
from torch import Tensor, nn
from torch.nn.modules import module as registration
from torch.overrides import TorchFunctionMode

from ..modeling.meta_arch import build_float_model
from ..ternary.ternarize import restore_classes
from .architecture import Architecture
from .container import PackedFileError
from .packed_layer import PackedLayer

__all__ = [
    "MOST_WEIGHTS",
    "WithoutRandomWeights",
    "bias_of",
    "build_skeleton",
    "fill_layer",
    "remove_norm",
]

MOST_WEIGHTS = 1 << 30  # that a packed file may claim
_MOST_MODULES = 5_000  # a ResNet-152 with cascaded heads has some hundred


class WithoutRandomWeights(TorchFunctionMode):
    """Leaves out the filling of weights that are about to be replaced.

    Tensors that are no parameters are filled: ``trunc_normal_`` draws such until all are in bounds.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        fills = getattr(function, "__module__", None) == "torch.nn.init"
        if fills or function in (torch.Tensor.normal_, torch.Tensor.uniform_):
            filled = kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
            if isinstance(filled, nn.Parameter):
                return filled
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
    with torch.device(device), WithoutRandomWeights(), _bounded(path):
        if architecture.library == "torchvision":
            return _network(architecture, path)
        cfg.MODEL.DEVICE = device
        try:
            model = build_float_model(cfg)
        except PackedFileError:
            raise
        except Exception as error:  # values of a file can end anywhere in Detectron2's builders
            raise PackedFileError(
                path,
                f"its model cannot be built ({_reason(error)}); import the plugin that "
                "registers it",
            ) from error
        restore_classes(model)
        _check_parts(model, path)
        return model


def _network(architecture: Architecture, path: str) -> nn.Module:
    """A network of torchvision that classifies: others fetch the weights of their backbones."""
    name, classes = architecture.name, architecture.classes
    if name not in torchvision.models.list_models(torchvision.models):
        raise PackedFileError(path, f"torchvision has no network {name!r} here")
    if not 0 < classes <= MOST_WEIGHTS:
        raise PackedFileError(path, f"it claims {classes} classes")
    try:
        return torchvision.models.get_model(name, weights=None, num_classes=classes)
    except PackedFileError:
        raise
    except Exception as error:  # some compute their widths from tensors, which "meta" has not
        raise PackedFileError(path, f"{name!r} cannot be built ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def _check_parts(model: nn.Module, path: str) -> None:
    """Refuse parts that Detectron2 builds together and that fail at the first picture.

    Raises:
        PackedFileError: boxes with an angle meet parts for boxes without, or strides do not fit.
    """
    sizes = {}  # numbers of a box, by the part that works on such
    for name, module in model.named_modules():
        transform = getattr(module, "box2box_transform", None)
        sizes |= {name: _box_size(module), f"{name}.box2box_transform": _box_size(transform)}
        if _box_size(transform) not in (None, len(getattr(transform, "weights", ()))):
            raise PackedFileError(path, f"{name!r} has {len(transform.weights)} weights of a box")
        if type(module) is SemSegFPNHead:
            shapes = model.backbone.output_shape()
            if any(shapes[key].stride < module.common_stride for key in module.in_features):
                raise PackedFileError(path, f"{name!r} has a stride above those of its features")
    turned = [name for name, size in sizes.items() if size == 5]
    straight = [name for name, size in sizes.items() if size == 4]
    if turned and straight:
        raise PackedFileError(
            path, f"{turned[0]!r} has boxes with an angle, and {straight[0]!r} boxes without"
        )


def _box_size(part) -> int | None:
    """5 for a part of Detectron2's that has boxes with an angle, 4 without; None for others."""
    if isinstance(part, ROIPooler):
        return 5 if any(isinstance(x, ROIAlignRotated) for x in part.level_poolers) else 4
    if isinstance(part, (RRPN, RotatedAnchorGenerator, Box2BoxTransformRotated)):
        return 5
    return 4 if isinstance(part, (RPN, DefaultAnchorGenerator, Box2BoxTransform)) else None


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


def remove_norm(model: nn.Module, name: str) -> None:
    """Take a norm out of a model, whose layer has it folded in."""
    parent, _, attribute = name.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, attribute, None if isinstance(owner, nn.Conv2d) else nn.Identity())
