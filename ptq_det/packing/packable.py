"""What no packed file can hold of a model, found before anything is packed."""

from collections.abc import Iterator

import numpy as np
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..errors import InputError
from .other_tensors import OtherTensors
from .packed_layer import PackedLayer

__all__ = ["check_packable", "check_packed", "check_states"]

_SHOWN = 5  # names in a message
_FLOAT8 = ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
_TYPES = {torch.bool, torch.complex64, torch.bfloat16, torch.half, torch.float, torch.double}
_TYPES |= {torch.uint8, torch.int8, torch.short, torch.int, torch.long}
_TYPES |= {torch.uint16, torch.uint32, torch.uint64}
_TYPES |= {getattr(torch, name) for name in _FLOAT8 if hasattr(torch, name)}


def check_packable(model: nn.Module) -> None:
    """Refuse tensors that are not finite, or that a file has no form for, and other states.

    Buffers may have any value, as masks of attention do, but for those of batch norms.

    Raises:
        InputError: there is one; the message names it, and the cure.
    """
    check_states(model)
    for name, tensor in model.state_dict().items():
        if tensor.is_meta:
            raise InputError(
                f"{name!r} is on the meta device, without values; fill the model first"
            )
        form = _formless(tensor)
        if form is not None:
            raise InputError(
                f"{name!r} is {form}, which a packed file cannot hold; convert it to one of "
                "PyTorch's usual types, or, where the model computes it itself, register it as a "
                "buffer with persistent=False"
            )
    wrong = [name for name, tensor in _computed_with(model) if not _is_finite(tensor)]
    if wrong:
        raise InputError(
            f"the model cannot be packed: {_listed(wrong)} values that are no finite numbers (its "
            "training diverged?); pack an earlier checkpoint"
        )


def check_states(model: nn.Module) -> None:
    """Refuse a model with states that are no tensors.

    Raises:
        InputError: a module of it has ``get_extra_state``.
    """
    for name, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise InputError(
                f"{name or 'the model'!r} ({type(module).__name__}) has a state of its own "
                "(get_extra_state), which a packed file cannot hold; keep it in buffers"
            )


def check_packed(model: nn.Module, layers: dict[str, PackedLayer], others: OtherTensors) -> None:
    """Refuse packed layers that are not finite, and a parameter that a layer shares with another
    module and of which a file would hold two values: an embedding reads it as it is, and a ternary
    layer does not.

    Args:
        model: that was packed.
        layers, others: its packed form.

    Raises:
        InputError: there is one.
    """
    held = others.shapes()
    outside = {id(p): n for n, p in model.named_parameters(remove_duplicate=False) if n in held}
    for name, layer in layers.items():
        figures = [x for x in (layer.scale, layer.bias) if x is not None]
        if not all(np.isfinite(each).all() for each in figures):
            norm = f"the norm {layer.norm} folded in" if layer.norm else "its scales and bias"
            raise InputError(
                f"{name} cannot be packed: with {norm} it holds values that float32 does not; has "
                "the model variances below 0, or weights of another magnitude than all others?"
            )
        other = outside.get(id(model.get_submodule(name).weight))
        if other is None:
            continue
        weight = torch.from_numpy(layer.weight())
        if not torch.equal(others.state_dict()[other], weight):
            raise InputError(
                f"'{name}.weight' and {other!r} are one parameter, of which the packed file would "
                f"hold two values, as {name} is {layer.kind} and the other is not. Give {name} a "
                "weight of its own before ternarize: nn.Parameter(weight.detach().clone()); or "
                "keep both as they are, with the layer in TERNARY.SKIP and TERNARY.FLOAT_LAYERS "
                '"float16"'
            )


def _formless(tensor: Tensor) -> str | None:
    """What a tensor is, if a file has no form for it."""
    if tensor.layout is not torch.strided:
        return f"a tensor of the layout {tensor.layout}"
    return None if tensor.dtype in _TYPES else f"of the type {tensor.dtype}"


def _computed_with(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, and the buffers of batch norms, by name."""
    yield from model.named_parameters()
    for prefix, module in model.named_modules():
        if isinstance(module, (_NormBase, FrozenBatchNorm2d)):
            yield from module.named_buffers(prefix, recurse=False)


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    return bool((tensor.float() if tensor.is_floating_point() else tensor).isfinite().all())


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more + (" holds" if len(names) == 1 else " hold")
