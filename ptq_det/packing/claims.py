"""What a packed file claims of a model, held against that model before any work."""

import math
from dataclasses import dataclass

from torch import nn

from ..ternary.layers import is_layer
from ..ternary.norms import find_norms
from .container import PackedFileError
from .names import BIAS
from .pack_layer import first_names
from .packed_layer import KERNEL, PackedLayer
from .skeleton import MOST_WEIGHTS

__all__ = ["Claim", "check_claims", "check_density", "check_total", "claimed_shape"]

_FREE_WEIGHTS = 1 << 20  # that are not counted against bytes
_WEIGHTS_A_BYTE = 128  # ten times as many as at 95 % zeros

_MOST_AXES = 8  # of a parameter that belongs to no layer


@dataclass(frozen=True)
class Claim:
    """A layer as a file has it, before it is decoded.

    Attributes:
        shape: of the weight in PyTorch.
        groups: of a transposed convolution, else None.
        has_bias: whether the file has a bias.
        norm: name of the norm that is folded in, or None.
    """

    shape: tuple[int, ...]
    groups: int | None
    has_bias: bool
    norm: str | None

    @classmethod
    def read(cls, fields: dict, parts: dict, name: str, path: str) -> "Claim":
        """What the fields of a header and the names of tensors claim.

        Raises:
            PackedFileError: the fields are none of a layer, or a size is beyond what is packed.
        """
        shape, groups, norm = (fields.get(key) for key in ("shape", "groups", "norm"))
        fits = isinstance(shape, list) and 2 <= len(shape) <= 4
        fits = fits and all(type(n) is int and 0 < n <= MOST_WEIGHTS for n in shape)
        fits = fits and math.prod(shape) <= MOST_WEIGHTS and max(shape[2:], default=1) <= KERNEL
        if not fits:
            raise PackedFileError(path, f"layer {name!r}: it has a wrong shape")
        if norm is not None and not isinstance(norm, str):
            raise PackedFileError(path, f"layer {name!r}: it has a wrong norm")
        if groups is not None and type(groups) is not int:
            raise PackedFileError(path, f"layer {name!r}: it has wrong groups")
        return cls(tuple(shape), groups, BIAS in parts, norm)

    @classmethod
    def of(cls, layer: PackedLayer) -> "Claim":
        """What a packed layer claims."""
        return cls(layer.shape, layer.groups, layer.bias is not None, layer.norm)


def check_total(
    layers: dict[str, Claim], parameters: dict[str, tuple[int, ...]], path: str
) -> None:
    """Raise :class:`PackedFileError` where layers and parameters have more weights than a file may
    claim, all together: what bounds memory where there is no model to hold a file against."""
    total = _total(layers, parameters)
    if total > MOST_WEIGHTS:
        raise PackedFileError(path, f"its layers have {total} weights")


def check_density(
    layers: dict[str, Claim], parameters: dict[str, tuple[int, ...]], coded: int, path: str
) -> None:
    """Raise :class:`PackedFileError` where they have more weights than so many bytes are likely to
    hold: what bounds time and memory where there is no model to hold a file against."""
    total = _total(layers, parameters)
    if total > _FREE_WEIGHTS + _WEIGHTS_A_BYTE * coded:
        raise PackedFileError(path, f"its layers have {total} weights in {coded} bytes")


def _total(layers: dict[str, Claim], parameters: dict[str, tuple[int, ...]]) -> int:
    shapes = [claim.shape for claim in layers.values()]
    return sum(map(math.prod, [*shapes, *parameters.values()]))


def claimed_shape(fields: dict, name: str, path: str) -> tuple[int, ...]:
    """The shape that the fields of a parameter claim.

    Raises:
        PackedFileError: it is none, or beyond what is packed.
    """
    shape = fields.get("shape")
    fits = isinstance(shape, list) and 1 <= len(shape) <= _MOST_AXES
    fits = fits and all(type(n) is int and 0 < n <= MOST_WEIGHTS for n in shape)
    if not fits or math.prod(shape) > MOST_WEIGHTS:
        raise PackedFileError(path, f"parameter {name!r}: it has a wrong shape")
    return tuple(shape)


def check_claims(
    layers: dict[str, Claim], tensors: dict[str, tuple[int, ...]], model: nn.Module, path: str
) -> None:
    """Compare layers and other tensors with a model, by names and shapes.

    Args:
        layers: by the layer's name.
        tensors: shapes of all that belongs to no layer, by name, in 8 bits or not.
        model: plain, of the file's config or given by the caller; on the meta device too.
        path: file that claims them, for messages.

    Raises:
        PackedFileError: they do not fit the model.
    """
    modules, norms = dict(model.named_modules()), find_norms(model.eval())
    inside: set[str] = set()
    folded: set[str] = set()
    for name, claim in layers.items():
        module = modules.get(name)
        found = tuple(module.weight.shape) if is_layer(module) else None
        if found != claim.shape:
            raise _unlike(path, name, claim.shape, found)
        transposed = isinstance(module, nn.ConvTranspose2d)
        if claim.groups != (module.groups if transposed else None):
            raise PackedFileError(path, f"the groups of {name!r} do not fit its model")
        if claim.norm is not None and norms.get(name) != claim.norm:
            raise PackedFileError(path, f"its model has no norm {claim.norm!r} behind {name!r}")
        if claim.norm in folded:
            raise PackedFileError(path, f"the norm {claim.norm!r} is folded into two layers")
        if claim.norm is not None:
            folded.add(claim.norm)
        if claim.has_bias != (module.bias is not None or claim.norm is not None):
            raise PackedFileError(path, f"the bias of {name!r} does not fit its model")
        inside |= {f"{name}.weight", f"{name}.bias"}
    starts, first = tuple(f"{norm}." for norm in folded), first_names(model)
    others = {
        name: tuple(value.shape)
        for name, value in model.state_dict().items()
        if first(name) not in inside and not (starts and name.startswith(starts))
    }
    for name in sorted({*others, *tensors}):
        if others.get(name) != tensors.get(name):
            raise _unlike(path, name, tensors.get(name), others.get(name))


def _unlike(path: str, name: str, here, there) -> PackedFileError:
    return PackedFileError(
        path, f"{name!r} has the shape {here} in the file and {there} in its model"
    )
