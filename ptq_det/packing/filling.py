"""Plain models with the weights of packed ones."""

import torch
from detectron2.layers import DeformConv, FrozenBatchNorm2d
from torch import Tensor, nn

from ..ternary.activations import fix_input
from .other_tensors import OtherTensors
from .packed_layer import PackedLayer
from .skeleton import bias_of, fill_layer, remove_norm

__all__ = ["fill_model", "fix_inputs", "plain_weights"]


def plain_weights(layers: dict[str, PackedLayer], others: OtherTensors) -> dict[str, Tensor]:
    """Weights by the keys of a plain checkpoint; a folded norm becomes one that only shifts."""
    weights = others.state_dict()
    for name, layer in layers.items():
        weights[f"{name}.weight"] = torch.from_numpy(layer.weight())
        bias = bias_of(layer)
        if layer.norm is None:
            if bias is not None:
                weights[f"{name}.bias"] = bias
            continue
        one = torch.ones(len(bias))
        weights |= {
            f"{layer.norm}.weight": one,
            f"{layer.norm}.bias": bias,
            f"{layer.norm}.running_mean": torch.zeros_like(one),
            f"{layer.norm}.running_var": one - layer.norm_eps,
        }
    return weights


@torch.no_grad()
def fill_model(model: nn.Module, layers: dict[str, PackedLayer], others: OtherTensors) -> None:
    """Give a plain model that they fit these weights, in place; folded norms are gone from it."""
    for name, layer in layers.items():
        module = model.get_submodule(name)
        fill_layer(module, layer)
        if isinstance(module, DeformConv):
            _shift_by_norm(module, layer)
        elif layer.norm is not None:
            remove_norm(model, layer.norm)
    model.load_state_dict(others.state_dict(), strict=False)
    fix_inputs(model, layers)


def fix_inputs(model: nn.Module, layers: dict[str, PackedLayer]) -> None:
    """Let the layers of a plain model quantize their inputs as the packed ones say."""
    modules = dict(model.named_modules())
    for name, layer in layers.items():
        if layer.activation_bits and name in modules:
            fix_input(modules[name], layer.activation_bits, layer.clip)


def _shift_by_norm(module: DeformConv, layer: PackedLayer) -> None:
    """Let the norm add the bias of a layer that cannot."""
    if layer.norm is not None:
        module.norm = FrozenBatchNorm2d(len(module.bias), layer.norm_eps)
        module.norm.bias.copy_(module.bias)
    module.bias = None
