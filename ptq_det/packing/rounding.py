"""Rounds a model in place to what its packed file will hold."""

import torch
from torch import nn

from ..ternary.layers import TernaryLayer
from ..ternary.norms import norm_factor_and_shift
from ..ternary.ternarize import unwrap
from .other_tensors import pack_others
from .pack_layer import pack_layers
from .packed_layer import PackedLayer
from .skeleton import bias_of

__all__ = ["give_packed_values", "round_to_packed"]


@torch.no_grad()
def round_to_packed(model: nn.Module, float_layers: str) -> None:
    """Move weights in place to the values that a packed file will hold.

    Scales, biases and all parameters in int8 or float16 are rounded; norms that are folded keep
    their statistics and scale. Packing the model then changes nothing but the last bits of float32.
    Layers whose scale is not per filter are left as they are: rounding behind a norm would give
    each filter its own.
    """
    model = unwrap(model)
    modules = dict(model.named_modules())

    def keeps_its_values(module) -> bool:
        quantizer = module.ternary.quantizer if isinstance(module, TernaryLayer) else None
        return quantizer is None or (quantizer.by_filter and quantizer.signs == 1)

    layers = pack_layers(model, float_layers)
    pack_others(model, layers, float_layers).give(model)
    give_packed_values(model, {n: x for n, x in layers.items() if keeps_its_values(modules[n])})


@torch.no_grad()
def give_packed_values(model: nn.Module, layers: dict[str, PackedLayer]) -> None:
    """Give layers, in place, the weights and biases that their packed forms hold.

    A norm keeps its statistics and its scale; filters whose norm multiplies by 0 are left.
    """
    modules = dict(model.named_modules())
    for name, packed in layers.items():
        module = modules[name]
        norm = modules.get(packed.norm)
        weight, bias = torch.from_numpy(packed.weight()), bias_of(packed)
        if norm is not None:
            factor, shift = norm_factor_and_shift(norm)
            dim = 1 if packed.groups is not None else 0
            divisor = factor.cpu().reshape([-1 if d == dim else 1 for d in range(weight.dim())])
            weight = torch.where(divisor == 0, module.weight.cpu().double(), weight / divisor)
            own = 0.0 if module.bias is None else module.bias.double() * factor
            norm.bias.copy_(norm.bias + (bias.to(factor.device) - own - shift))
        elif bias is not None:
            module.bias.copy_(bias)
        module.weight.copy_(weight)
