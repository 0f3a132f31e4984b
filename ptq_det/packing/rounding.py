"""Rounds a model in place to what its packed file will hold."""

import torch
from torch import nn

from ..ternary.layers import TernaryLayer
from ..ternary.norms import norm_factor_and_shift
from ..ternary.ternarize import unwrap
from .pack_layer import pack_layers
from .skeleton import bias_of

__all__ = ["round_to_packed"]


@torch.no_grad()
def round_to_packed(model: nn.Module, float_layers: str) -> None:
    """Move weights in place to the values that a packed file will hold.

    Scales, biases and layers in int8 or float16 are rounded; norms keep their statistics and
    scale. Packing the model then changes nothing but the last bits of float32. Layers whose scale
    is not per filter are left as they are: rounding behind a norm would give each filter its own.
    """
    model = unwrap(model)
    modules = dict(model.named_modules())
    for name, packed in pack_layers(model, float_layers).items():
        module = modules[name]
        if isinstance(module, TernaryLayer):
            quantizer = module.ternary.quantizer
            if not quantizer.by_filter or quantizer.signs > 1:
                continue
        norm = modules.get(packed.norm)
        weight, bias = torch.from_numpy(packed.weight()), bias_of(packed)
        if norm is not None:
            factor, shift = norm_factor_and_shift(norm)
            if bool((factor == 0).any()):
                continue
            dim = 1 if packed.groups is not None else 0
            view = [-1 if d == dim else 1 for d in range(weight.dim())]
            weight = weight.double() / factor.cpu().reshape(view)
            own = 0.0 if module.bias is None else module.bias.double() * factor
            norm.bias.copy_(norm.bias + (bias.to(factor.device) - own - shift))
        elif bias is not None:
            module.bias.copy_(bias)
        module.weight.copy_(weight)
