"""Makes the layers of a model ternary, in place."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, DeformConv, ModulatedDeformConv
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.optim.swa_utils import AveragedModel

from ..errors import InputError, UntrainedLayersError
from ..settings import TernarySettings
from .activations import keep_input, layers_after_relu, quantize_input
from .compiled import give_number
from .deformable import TernaryDeformConv, TernaryModulatedDeformConv
from .kept_layers import kept_layers
from .layers import (
    TernaryConv1d,
    TernaryConv2d,
    TernaryConvTranspose2d,
    TernaryLayer,
    TernaryLinear,
)
from .network_threshold import NetworkThreshold, forget_threshold
from .state import TernaryState
from .straight_through import Decay

__all__ = [
    "Conversion",
    "check_trained",
    "make_plain",
    "restore_classes",
    "ternarize",
    "ternary_layers",
    "unwrap",
]

_TERNARY_TYPES = {
    nn.Conv1d: TernaryConv1d,
    nn.Conv2d: TernaryConv2d,
    Conv2d: TernaryConv2d,
    nn.ConvTranspose2d: TernaryConvTranspose2d,
    nn.Linear: TernaryLinear,
    DeformConv: TernaryDeformConv,
    ModulatedDeformConv: TernaryModulatedDeformConv,
}


@dataclass
class Conversion:
    """What :func:`ternarize` did, by the full names of the layers.

    Attributes:
        converted: target sparsity of each layer that became ternary.
        already: layers that were ternary before.
        skipped: why each other layer with a weight stays in float.
        weights: number of ternary weights, over all of them.
    """

    converted: dict[str, float] = field(default_factory=dict)
    already: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    weights: int = 0

    def __str__(self):
        lines = [
            f"Ternary layers: {len(self.converted) + len(self.already)} "
            f"({self.weights / 1e6:.2f} M weights); {len(self.skipped)} stay in float:"
        ]
        lines += [f"  {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join(lines)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside wrappers, or the model itself: of several processes, of an average of
    weights, of ``torch.compile``."""
    while True:
        if isinstance(model, (DataParallel, DistributedDataParallel, AveragedModel)):
            model = model.module
        elif "_orig_mod" in model._modules:  # to import its class takes seconds
            model = model._orig_mod
        else:
            return model


def ternary_layers(model: nn.Module) -> dict[str, TernaryLayer]:
    """The ternary layers of a model by name; wrappers are looked through."""
    model = unwrap(model)
    return {n: m for n, m in model.named_modules() if isinstance(m, TernaryLayer)}


def ternarize(
    model: nn.Module, cfg: CfgNode | TernarySettings | Mapping[str, Any], prefix: str = ""
) -> Conversion:
    """Make the chosen convolutions and linear layers of a model ternary, in place.

    Every module object, parameter object and checkpoint key is kept. Layers that are ternary
    already are left as they are, so a second call does nothing.

    Args:
        model: the model, or a part of one.
        cfg: full config, whose node ``TERNARY`` says which layers and how; or settings, as
            :meth:`ptq_det.settings.TernarySettings.of` takes them.
        prefix: full name of the part with a dot at its end, e.g. ``"roi_heads."``.

    Returns:
        What was converted, and what was not and why.

    Raises:
        InputError: a value in ``TERNARY`` is not allowed, a pattern of ``SPARSITY_OVERRIDES``
            matches no layer of the whole model, or a chosen layer is frozen or lazy.
    """
    settings = TernarySettings.of(cfg)
    record = Conversion()
    chosen: dict[str, nn.Module] = {}
    bypassed = _read_without_forward(model)
    coarse = settings.build_quantizer().levels < 127  # than the 8 bits of what stays in float
    kept = kept_layers(model, prefix, depthwise=coarse)
    for name, module in model.named_modules():
        name = prefix + name
        if isinstance(module, TernaryLayer):
            record.already.append(name)
            record.weights += module.weight.numel()
            continue
        reason = bypassed.get(module) or _reason_to_skip(name, module, kept.get(module), settings)
        if reason is None:
            chosen[name] = module
        elif reason:
            record.skipped[name] = reason

    _refuse_frozen(chosen)
    if not prefix:
        _refuse_idle_overrides(settings, [*chosen, *record.already])
    positive = layers_after_relu(model) if settings.activation_bits else set()
    for name, module in chosen.items():
        _convert(module, settings, settings.sparsity_of(name))
        if name.removeprefix(prefix) in positive:
            quantize_input(module, settings.activation_bits)
        record.converted[name] = module.ternary.sparsity
        record.weights += module.weight.numel()
    if settings.threshold == "network":
        _share_threshold(model, settings)
    return record


@torch.no_grad()
def make_plain(model: nn.Module) -> None:
    """Give ternary layers the weights that their forward pass uses and the classes they had, in
    place: a model for tools that know plain layers alone, e.g. ``torch.jit.script``.

    It computes what it did in evaluation mode, but for quantized activations, which are in float
    from then on.

    Args:
        model: a model with ternary layers; a wrapper is looked through.
    """
    for layer in ternary_layers(model).values():
        training, layer.training = layer.training, False  # codes that are frozen stay
        layer.weight.copy_(layer.forward_weight())
        layer.training = training
    restore_classes(model)


def restore_classes(model: nn.Module) -> None:
    """Give ternary layers back the classes they had, in place; weights are left as they are."""
    for layer in ternary_layers(model).values():
        keep_input(layer)
        layer.__class__ = layer.ternary.plain
        if layer.ternary.plain is nn.Conv2d:  # what _convert gave it
            del layer.norm, layer.activation
        del layer.ternary, layer.scale, layer.sparsity, layer.number
    for module in model.modules():
        _stop_forgetting(module)


def check_trained(model: nn.Module, cfg: CfgNode | TernarySettings | Mapping[str, Any]) -> None:
    """Raise :class:`UntrainedLayersError` if a ternary layer was never loaded from a checkpoint.

    Does nothing where ``TERNARY.REQUIRE_TRAINED`` is off.
    """
    if not TernarySettings.of(cfg).require_trained:
        return
    names = [name for name, layer in ternary_layers(model).items() if not layer.ternary.loaded]
    if names:
        raise UntrainedLayersError(names, cfg.MODEL.WEIGHTS if isinstance(cfg, CfgNode) else None)


def _read_without_forward(model: nn.Module) -> dict[nn.Module, str]:
    """Layers whose weights PyTorch's own modules read without calling them, with the reason."""
    return {
        module: f"{type(owner).__name__} reads its weight without its forward"
        for owner in model.modules()
        if isinstance(owner, (nn.MultiheadAttention, nn.TransformerEncoderLayer))
        for module in owner.modules()
        if isinstance(module, nn.Linear)
    }


def _reason_to_skip(
    name: str, module: nn.Module, kept: str | None, settings: TernarySettings
) -> str | None:
    """None for a layer to convert, "" for what is no layer with a weight, else a reason."""
    weight = getattr(module, "weight", None)
    if is_lazy(weight):
        raise InputError(f"{name} has no weight yet; run the model once before ternarize")
    if not isinstance(weight, torch.Tensor) or weight.dim() < 2:
        return ""
    if type(module) not in _TERNARY_TYPES:
        return f"layers of type {type(module).__name__} are not supported"
    return settings.reason_to_skip(name, kept)


def _refuse_frozen(chosen: dict[str, nn.Module]) -> None:
    frozen = [name for name, module in chosen.items() if not module.weight.requires_grad]
    if frozen:
        raise InputError(
            f"{len(frozen)} layers to be ternarized are frozen, so they cannot be fine-tuned:\n  "
            + "\n  ".join(frozen)
            + "\nLower MODEL.BACKBONE.FREEZE_AT (1 freezes the stem alone), or name them in "
            "TERNARY.SKIP to keep them in float."
        )


def _refuse_idle_overrides(settings: TernarySettings, names: list[str]) -> None:
    for pattern, sparsity in settings.sparsity_overrides:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"TERNARY.SPARSITY_OVERRIDES has [{pattern!r}, {sparsity}], but no ternary layer "
                f"has a name like that; names look like {names[0] if names else '(none)'!r}"
            )


def _share_threshold(model: nn.Module, settings: TernarySettings) -> None:
    layers = [module for module in model.modules() if isinstance(module, TernaryLayer)]
    shared = NetworkThreshold(layers, settings.sparsity)
    for layer in layers:
        layer.ternary.network = shared
    _stop_forgetting(model)
    model.register_forward_pre_hook(forget_threshold)


def _stop_forgetting(model: nn.Module) -> None:
    for key, hook in list(model._forward_pre_hooks.items()):
        if hook is forget_threshold:
            del model._forward_pre_hooks[key]


def _convert(module: nn.Module, settings: TernarySettings, sparsity: float) -> None:
    plain = type(module)
    module.__class__ = _TERNARY_TYPES[plain]
    if plain is nn.Conv2d:
        module.norm = module.activation = None
    quantizer = settings.build_quantizer()
    decay = Decay(settings.decay, settings.decay_toward == "codes")
    module.ternary = TernaryState(quantizer, sparsity, decay, plain)
    module.register_parameter("scale", None)
    chosen = torch.full((), -1.0, device=module.weight.device) if settings.target_mib else None
    module.register_buffer("sparsity", chosen)
    give_number(module)
    if quantizer.learns_scale:
        filters = module.to_filters(module.weight.detach())
        groups = len(filters) if quantizer.by_filter else 1
        module.scale = nn.Parameter(filters.new_ones(quantizer.signs, groups))
        module.start_scale()
