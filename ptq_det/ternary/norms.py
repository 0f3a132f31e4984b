"""Batch norms behind convolutions: found, and folded into the weights."""

from collections import Counter
from itertools import pairwise

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d, NaiveSyncBatchNorm
from torch import Tensor, nn

from .deformable import TernaryDeformConv, TernaryModulatedDeformConv
from .layers import DEFORMABLE, TernaryConv2d, TernaryLayer

__all__ = ["find_norms", "fold_norms", "norm_factor_and_shift"]

# By exact type: a subclass may do something else in evaluation (Rethinking-BN's batch statistics).
_FOLDABLE = (FrozenBatchNorm2d, nn.BatchNorm2d, nn.SyncBatchNorm, NaiveSyncBatchNorm)
_CONVOLUTIONS = (  # whose forward is known, and ends in the norm
    nn.Conv2d,
    Conv2d,
    TernaryConv2d,
    *DEFORMABLE,
    TernaryDeformConv,
    TernaryModulatedDeformConv,
)
_ONE = 1e-6  # how far from 1 the factor of a norm that is folded already may be


def norm_factor_and_shift(norm: nn.Module | None) -> tuple[Tensor, Tensor] | None:
    """Scale and shift of each channel that a batch norm in evaluation mode amounts to, in float64.

    γ/√(σ² + ε) and β − μγ/√(σ² + ε) (batch normalization, arXiv 1502.03167); None for a norm that
    depends on its input (in evaluation too, where it keeps no statistics), and without one.
    """
    if not _is_foldable(norm):
        return None
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight.detach().double()
    shift = -norm.running_mean.double() * factor
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return factor, shift


class _LayerTracer(torch.fx.Tracer):
    """Does not look into modules that have weights of their own, nor into lists that are called:
    those choose one of their modules (``CycleBatchNormList``), another one at each call."""

    def is_leaf_module(self, m, module_qualified_name):
        own = isinstance(m, nn.ModuleList) or any(True for _ in m.parameters(recurse=False))
        return own or super().is_leaf_module(m, module_qualified_name)


def find_norms(model: nn.Module) -> dict[str, str]:
    """Name of the batch norm right behind each convolution that has one, by the convolution's name.

    Those inside Detectron2's convolutions, those next in a sequence, and those in parts of the
    model that torch.fx can trace. A convolution or a norm that has two names, or is called twice,
    is left out, and so are classes that are not known exactly.
    """
    modules, shared = dict(model.named_modules()), _shared(model)
    found = {
        name: f"{name}.norm"
        for name, module in modules.items()
        if _is_known(module, shared) and _folds(getattr(module, "norm", None), shared)
    }
    for name, module in modules.items():
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            children = [
                (f"{name}.{key}" if name else key, child) for key, child in module.named_children()
            ]
            for (first, convolution), (second, norm) in pairwise(children):
                if _is_known(convolution, shared) and _folds(norm, shared):
                    found[first] = second
    left = {n for n, m in modules.items() if _folds(m, shared)} - set(found.values())
    _trace(model, "", left, shared, found)
    return found


def _trace(
    part: nn.Module, prefix: str, left: set[str], shared: set[int], found: dict[str, str]
) -> None:
    """Add to ``found`` what a part's forward shows of the norms ``left``, or those of its parts."""
    if not any(name.startswith(prefix) for name in left):
        return
    modules = dict(part.named_modules())
    try:
        graph = _LayerTracer().trace(part)
    except Exception:  # a forward pass may do anything; what is not found is not folded
        for name, child in part.named_children():
            _trace(child, f"{prefix}{name}.", left, shared, found)
        return
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        if node.op != "call_module" or prefix + node.target not in left:
            continue
        source = node.args[0] if node.args else None
        if (
            getattr(source, "op", None) == "call_module"
            and _is_known(modules[source.target], shared)
            and len(source.users) == 1
            and calls[node.target] == calls[source.target] == 1
        ):
            found[prefix + source.target] = prefix + node.target


def _shared(model: nn.Module) -> set[int]:
    """Identities of the modules that have more than one name."""
    counts = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    return {each for each, count in counts.items() if count > 1}


def _is_known(module: nn.Module, shared: set[int]) -> bool:
    return type(module) in _CONVOLUTIONS and id(module) not in shared


def _folds(norm: nn.Module | None, shared: set[int]) -> bool:
    return id(norm) not in shared and _is_foldable(norm)


def _is_foldable(norm: nn.Module | None) -> bool:
    if type(norm) not in _FOLDABLE:
        return False
    return norm.running_mean is not None and norm.running_var is not None


@torch.no_grad()
def fold_norms(model: nn.Module) -> None:
    """Multiply norms into the weights of the layers whose quantizer asks for it, in place.

    The norm is left with a shift only (γ = 1, μ = 0, σ² = 1 − ε), under its own keys; a second
    call does nothing. A norm that is trained on the statistics of its batches is left as it is, and
    so is one behind codes that are fixed: with other scales they would be rounded again.
    """
    modules = dict(model.named_modules())
    for name, norm_name in find_norms(model).items():
        layer, norm = modules[name], modules[norm_name]
        if not isinstance(layer, TernaryLayer) or not layer.ternary.quantizer.folds_norms:
            continue
        live = norm.training and not isinstance(norm, FrozenBatchNorm2d)
        factor, shift = norm_factor_and_shift(norm)
        only_shifts = (factor - 1).abs().max() < _ONE and not norm.running_mean.any()
        fixed = layer.ternary.quantizer.is_quantized(layer.to_filters(layer.weight).float())
        if live or only_shifts or fixed:
            continue
        filters = layer.to_filters(layer.weight).double() * factor.unsqueeze(1)
        layer.weight.copy_(layer.from_filters(filters))
        if layer.bias is not None:
            layer.bias.mul_(factor)
        norm.weight.fill_(1.0)
        norm.bias.copy_(shift)
        norm.running_mean.zero_()
        norm.running_var.fill_(1.0 - norm.eps)
