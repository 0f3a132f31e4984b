"""Builds the model that a packed file is for, and finds the norms in one."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torchvision
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn
from torch.overrides import TorchFunctionMode

from ..convert import make_plain
from .container import PackedFileError
from .layers import fold_norm

__all__ = ["build_architecture", "find_norms"]


class _WithoutRandomWeights(TorchFunctionMode):
    """Leaves out the filling of weights that are about to be replaced."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        in_init = getattr(function, "__module__", None) == "torch.nn.init"
        if in_init or function in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return function(*args, **(kwargs or {}))


class _LayerTracer(torch.fx.Tracer):
    """Does not look into modules that have weights of their own."""

    def is_leaf_module(self, m, module_qualified_name):
        own = any(True for _ in m.parameters(recurse=False))
        return own or super().is_leaf_module(m, module_qualified_name)


def build_architecture(architecture: list, config: Callable[[], CfgNode], path: str) -> nn.Module:
    """A plain model on the CPU with arbitrary weights.

    Args:
        architecture: ``["detectron2"]``, or ``["torchvision", name, number of classes]``.
        config: gives the config of a Detectron2 model.
        path: file that asks for it, for messages.

    Raises:
        PackedFileError: it is not known, or cannot be built here.
    """
    with _WithoutRandomWeights():
        match architecture:
            case ["detectron2"]:
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
            case ["torchvision", str(name), int(classes)] if (
                name in torchvision.models.list_models()
            ):
                return torchvision.models.get_model(name, weights=None, num_classes=classes)
    raise PackedFileError(path, f"its architecture {architecture!r} is not known")


def find_norms(model: nn.Module) -> dict[str, str]:
    """Name of the batch norm right behind each convolution that has one, by the convolution's name.

    Those inside Detectron2's convolutions, those next in a sequence, and those of a model that
    torch.fx can trace.
    """
    modules = dict(model.named_modules())
    found = {
        name: f"{name}.norm"
        for name, module in modules.items()
        if isinstance(module, nn.Conv2d) and fold_norm(getattr(module, "norm", None)) is not None
    }
    for name, module in modules.items():
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            children = [
                (f"{name}.{key}" if name else key, child) for key, child in module.named_children()
            ]
            for (first, convolution), (second, norm) in pairwise(children):
                if isinstance(convolution, nn.Conv2d) and fold_norm(norm) is not None:
                    found[first] = second
    norms = {name for name, module in modules.items() if fold_norm(module) is not None}
    if norms <= set(found.values()):
        return found
    try:
        graph = _LayerTracer().trace(model)
    except Exception:  # a forward pass may do anything; what is not found is not folded
        return found
    for node in graph.nodes:
        if node.op != "call_module" or fold_norm(modules.get(node.target)) is None:
            continue
        source = node.args[0]
        if (
            source.op == "call_module"
            and isinstance(modules[source.target], nn.Conv2d)
            and len(source.users) == 1
        ):
            found[source.target] = node.target
    return found
