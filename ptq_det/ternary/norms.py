"""Batch norms behind convolutions: found, and folded into the weights."""

from itertools import pairwise

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn

from .layers import TernaryLayer

__all__ = ["find_norms", "fold_norms", "norm_factor_and_shift"]

_FOLDABLE = (FrozenBatchNorm2d, nn.modules.batchnorm._BatchNorm)
_ONE = 1e-6  # how far from 1 the factor of a norm that is folded already may be


def norm_factor_and_shift(norm: nn.Module | None) -> tuple[Tensor, Tensor] | None:
    """Scale and shift of each channel that a batch norm in evaluation mode amounts to, in float64.

    γ/√(σ² + ε) and β − μγ/√(σ² + ε) (batch normalization, arXiv 1502.03167); None for a norm that
    depends on its input, and without one.
    """
    if not isinstance(norm, _FOLDABLE) or norm.running_var is None:
        return None
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.detach().double()
    shift = -norm.running_mean.double() * factor
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return factor, shift


class _LayerTracer(torch.fx.Tracer):
    """Does not look into modules that have weights of their own."""

    def is_leaf_module(self, m, module_qualified_name):
        own = any(True for _ in m.parameters(recurse=False))
        return own or super().is_leaf_module(m, module_qualified_name)


def find_norms(model: nn.Module) -> dict[str, str]:
    """Name of the batch norm right behind each convolution that has one, by the convolution's name.

    Those inside Detectron2's convolutions, those next in a sequence, and those of a model that
    torch.fx can trace.
    """
    modules = dict(model.named_modules())
    found = {
        name: f"{name}.norm"
        for name, module in modules.items()
        if isinstance(module, nn.Conv2d) and _folds(getattr(module, "norm", None))
    }
    for name, module in modules.items():
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            children = [
                (f"{name}.{key}" if name else key, child) for key, child in module.named_children()
            ]
            for (first, convolution), (second, norm) in pairwise(children):
                if isinstance(convolution, nn.Conv2d) and _folds(norm):
                    found[first] = second
    norms = {name for name, module in modules.items() if _folds(module)}
    if norms <= set(found.values()):
        return found
    try:
        graph = _LayerTracer().trace(model)
    except Exception:  # a forward pass may do anything; what is not found is not folded
        return found
    for node in graph.nodes:
        if node.op != "call_module" or not _folds(modules.get(node.target)):
            continue
        source = node.args[0]
        if (
            source.op == "call_module"
            and isinstance(modules[source.target], nn.Conv2d)
            and len(source.users) == 1
        ):
            found[source.target] = node.target
    return found


def _folds(norm: nn.Module | None) -> bool:
    return norm_factor_and_shift(norm) is not None


@torch.no_grad()
def fold_norms(model: nn.Module) -> None:
    """Multiply norms into the weights of the layers whose quantizer asks for it, in place.

    The norm is left with a shift only (γ = 1, μ = 0, σ² = 1 − ε), under its own keys; a second
    call does nothing. A norm that is trained on the statistics of its batches is left as it is.
    """
    modules = dict(model.named_modules())
    for name, norm_name in find_norms(model).items():
        layer, norm = modules[name], modules[norm_name]
        if not isinstance(layer, TernaryLayer) or not layer.ternary.quantizer.folds_norms:
            continue
        live = norm.training and not isinstance(norm, FrozenBatchNorm2d)
        factor, shift = norm_factor_and_shift(norm)
        only_shifts = (factor - 1).abs().max() < _ONE and not norm.running_mean.any()
        if live or only_shifts:
            continue
        filters = layer.to_filters(layer.weight).double() * factor.unsqueeze(1)
        layer.weight.copy_(layer.from_filters(filters))
        if layer.bias is not None:
            layer.bias.mul_(factor)
        norm.weight.fill_(1.0)
        norm.bias.copy_(shift)
        norm.running_mean.zero_()
        norm.running_var.fill_(1.0 - norm.eps)
