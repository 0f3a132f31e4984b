"""Activations in k bits by PACT (arXiv 1805.06085), at the inputs of layers behind a ReLU."""

import math
from functools import partial

import torch
import torch.nn.functional as F
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from detectron2.utils import comm
from torch import Tensor, nn

from .compiled import compiled_clip, give_number
from .layers import is_layer
from .schedule import Stage
from .straight_through import substitute

__all__ = [
    "PACT",
    "fix_input",
    "free_input",
    "is_relu",
    "keep_input",
    "layers_after_relu",
    "quantize_activation",
    "quantize_input",
]

_RELUS = (nn.ReLU, nn.ReLU6)
_TRANSPARENT = (nn.Identity, nn.Dropout, nn.Flatten, nn.MaxPool2d)  # keep what is positive positive
_CANDIDATES = 20


def quantize_activation(x: Tensor, clip: Tensor, bits: int) -> Tensor:
    """Clip to [0, α] and round to 2^k − 1 steps (PACT, equations 1 to 3), in the dtype of ``x``.

    The gradient passes through the rounding; α's is the sum over the elements of at least α.

    Args:
        x: activations, any shape.
        clip: α, a number greater than 0.
        bits: k.
    """
    clip = clip.to(x.dtype)
    clipped = torch.where(x < clip, x.relu(), clip)
    with torch.no_grad():
        step = clip / (2**bits - 1)
        rounding = (clipped / step).round().mul_(step).sub_(clipped)
    return clipped + rounding


class PACT(nn.Module):
    """Quantizer of a layer's input with a learned clip α, the parameter ``clip``.

    α starts, at the first training step with quantized activations, where the squared error on
    that batch is least among the twentieths of the largest activation; 0 stands for not started.
    It decays like a weight (``SOLVER.WEIGHT_DECAY``), as the paper has it.
    """

    def __init__(self, bits: int, device: torch.device | None = None):
        super().__init__()
        self.bits = bits
        self.clip = nn.Parameter(torch.zeros((), device=device))
        self._started = False  # asking the parameter at every call would wait for a GPU
        self._watched: list[Tensor] | None = None
        give_number(self)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return self._compiled(x)
        if not self.has_started():
            if not self.training:
                return x
            self.start(x.detach())
        self._watch(x)
        return quantize_activation(x, self.clip, self.bits)

    def has_started(self) -> bool:
        """Whether there is a clip."""
        self._started = self._started or float(self.clip.detach()) > 0
        return self._started

    def _compiled(self, x: Tensor) -> Tensor:
        """The same without a question, which would break the graph."""
        clip = compiled_clip(x.detach(), self.clip, self.number, self.training)
        self._watch(x)
        quantized = quantize_activation(x, clip, self.bits)
        return quantized if self.training else torch.where(clip > 0, quantized, x)

    def _watch(self, x: Tensor) -> None:
        if self._watched is not None:
            self._watched.append(x.detach().isfinite().all())

    def watch(self) -> None:
        """Note from now on whether inputs are finite, until :meth:`trouble` is asked."""
        self._watched = []

    def trouble(self) -> str | None:
        """What makes its outputs useless, or None: inputs seen since :meth:`watch`, or the clip."""
        watched, self._watched = self._watched, None
        if watched and not bool(torch.stack(watched).all()):
            return "its inputs are not finite"
        clip = float(self.clip.detach())
        if self._started and not 0 < clip < math.inf:
            return f"the clip of its inputs has become {clip:g}"
        return None

    @torch.no_grad()
    def start(self, x: Tensor) -> None:
        """Set α from a batch, to the mean over all processes."""
        x = x.float()
        found = 0.0
        if x.numel() and x.max() > 0:
            clips = x.max() * torch.arange(1, _CANDIDATES + 1, device=x.device) / _CANDIDATES
            errors = [(quantize_activation(x, c, self.bits) - x).square().sum() for c in clips]
            found = float(clips[torch.stack(errors).argmin()])
        every = [clip for clip in comm.all_gather(found) if clip > 0] or [1.0]
        self.clip.fill_(sum(every) / len(every))
        self._started = True

    def __setstate__(self, state):
        super().__setstate__(state)
        give_number(self)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        absent = prefix + "clip" not in state_dict
        if absent:  # a checkpoint with float activations: not a missing key
            state_dict[prefix + "clip"] = torch.zeros(())
        super()._load_from_state_dict(state_dict, prefix, *args)
        if absent:
            del state_dict[prefix + "clip"]


def quantize_input(layer: nn.Module, bits: int) -> None:
    """Quantize what a ternary layer gets, from the ternary stage on; adds the module ``pact``."""
    layer.pact = PACT(bits, layer.weight.device)
    layer.register_forward_pre_hook(_quantize)


def keep_input(layer: nn.Module) -> None:
    """Undo :func:`quantize_input`."""
    for key, hook in list(layer._forward_pre_hooks.items()):
        if hook is _quantize:
            del layer._forward_pre_hooks[key], layer.pact


def fix_input(layer: nn.Module, bits: int, clip: float) -> None:
    """Quantize what a layer gets, with a clip that is not learned."""
    layer.register_forward_pre_hook(partial(_quantize_fixed, bits, clip))


def free_input(layer: nn.Module) -> None:
    """Undo :func:`fix_input`."""
    for key, hook in list(layer._forward_pre_hooks.items()):
        if getattr(hook, "func", None) is _quantize_fixed:
            del layer._forward_pre_hooks[key]


def _quantize(layer, args):
    first, *others = args
    if layer.ternary.stage is not Stage.PRUNE:
        return (layer.pact(first), *others)
    # Several processes must find a gradient for every parameter.
    clip = layer.pact.clip
    if torch.compiler.is_compiling():
        return (first + 0 * clip.to(first.dtype), *others)
    return (substitute(first.detach(), first, clip, lambda g: (g, torch.zeros_like(clip))), *others)


def _quantize_fixed(bits, clip, layer, args):
    first, *others = args
    return (quantize_activation(first, first.new_full((), clip), bits), *others)


def layers_after_relu(model: nn.Module) -> set[str]:
    """Names of the convolutions and linear layers whose input is the output of a ReLU.

    Those of Detectron2's residual blocks, and those that follow a ReLU, or a convolution with one
    inside, in a sequence.
    """
    found = set()
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, (BasicBlock, BottleneckBlock)):
            found |= {prefix + key for key, child in module.named_children() if is_layer(child)}
        elif isinstance(module, nn.Sequential):
            found |= {prefix + key for key in _after_relu_in_sequence(module)}
    return found


def _after_relu_in_sequence(sequence: nn.Sequential):
    positive = False
    for name, module in _flatten(sequence):
        if is_layer(module) and positive:
            yield name
        if is_relu(module) or is_relu(getattr(module, "activation", None)):
            positive = True
        elif not isinstance(module, _TRANSPARENT):
            positive = False


def _flatten(sequence: nn.Sequential, prefix: str = ""):
    for name, child in sequence.named_children():
        if isinstance(child, nn.Sequential):
            yield from _flatten(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def is_relu(activation) -> bool:
    """Whether a module or function gives numbers of at least 0 as a ReLU or a ReLU6 does."""
    return activation is F.relu or isinstance(activation, _RELUS)
