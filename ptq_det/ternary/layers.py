"""Convolutions and linear layers whose forward pass uses a ternary weight.

Each is a subclass of the layer it replaces, with the same attributes and checkpoint keys: the
parameter ``weight`` is the latent weight. An official checkpoint loads into it, and its state dict
loads into the layer it replaced.
"""

import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, DeformConv, ModulatedDeformConv
from detectron2.utils.logger import log_first_n
from torch import Tensor, nn

from ..errors import InputError
from .cache import can_cache
from .compiled import EXPORTED, SCRIPTED, compiled_forward_weight, give_number, untraced
from .filters import from_filters, to_filters
from .schedule import Stage
from .state import TernaryState
from .straight_through import forward_weight, substitute

__all__ = [
    "DEFORMABLE",
    "OWN_KEYS",
    "TernaryConv1d",
    "TernaryConv2d",
    "TernaryConvTranspose2d",
    "TernaryLayer",
    "TernaryLinear",
    "is_layer",
]

_is_exporting = getattr(torch.compiler, "is_exporting", bool)  # PyTorch has it from 2.7 on

_UNTENDED = (
    "Ternary layers are trained without ptq_det.PTQHook: at their final sparsity from the first "
    "iteration on, with neither stages nor compensation. Add it by "
    "`trainer.register_hooks([ptq_det.PTQHook(cfg)])`; ptq_det.TernaryTrainer has it, and follows "
    "TERNARY.OPTIMIZER and TERNARY.DISTILLATION too."
)

OWN_KEYS = ("scale", "sparsity", "pact.clip")
"""What a ternary layer may have in a state dict beside the keys of the layer it replaces."""


DEFORMABLE = (DeformConv, ModulatedDeformConv)
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear, *DEFORMABLE)


def is_layer(module: nn.Module) -> bool:
    """Whether it is a layer: a convolution (deformable, transposed) or a linear layer."""
    return isinstance(module, _LAYERS)


class TernaryLayer:
    """What the ternary layers have in common; mixed into the layer it replaces.

    Attributes:
        ternary: the layer's :class:`TernaryState`.
        number: by which compiled code finds it, a tensor on the CPU.
        scale: a parameter ``(S, G)`` where the quantizer learns its scale, else None.
        sparsity: a buffer ``()`` where the size of the file is asked for: the sparsity that was
            chosen for it, below 0 before one was; else None.
    """

    ternary: TernaryState
    number: Tensor
    scale: nn.Parameter | None
    sparsity: Tensor | None

    def to_filters(self, weight: Tensor) -> Tensor:
        """The weight as a matrix of filters ``(F, N)``, one output channel a row."""
        return to_filters(weight)

    def from_filters(self, filters: Tensor) -> Tensor:
        """The reverse of :meth:`to_filters`."""
        return from_filters(filters, self.weight.shape)

    def forward_weight(self) -> Tensor:
        """The weight that the forward pass uses, shape and dtype of ``weight``.

        Computed once for each value of what it is derived from, however often the layer is called:
        once in evaluation, once a step in training. A layer that is called on several feature maps
        gets one gradient.

        Raises:
            InputError: ``torch.export`` asks for it.
        """
        if _is_exporting():
            raise InputError(EXPORTED)
        if torch.compiler.is_compiling():
            return compiled_forward_weight(self.weight, self.scale, self.number)
        training = self.training and torch.is_grad_enabled()
        is_tracing = torch.jit.is_tracing()
        with untraced():
            value = self._cached(training, self._compute_forward_weight, self.weight, self.scale)
            return value.detach() if is_tracing else value  # constants have no gradient

    def value_and_rule(self, weight: Tensor, scale: Tensor | None) -> tuple[Tensor, Callable]:
        """What :meth:`forward_weight` gives for a latent weight and learned scale, detached, and
        :meth:`_quantize`'s rule; for compiled code, which asks outside of autograd, and for weights
        that ``torch.func.functional_call`` puts in the place of the layer's own."""
        training = self.training and self.weight.requires_grad
        return self._cached(training, self._value_and_rule, weight, scale)

    def _cached(self, training: bool, compute: Callable, weight: Tensor, scale: Tensor | None):
        state, sources = self.ternary, [weight]
        if not can_cache():
            return compute(weight, scale)
        if scale is not None:
            sources.append(scale)
        if state.shares_threshold:
            sources.append(state.network.of(self))
        key = (compute.__name__, self.weight.requires_grad, self.training, state.stage, state.ratio)
        value = state.cache.get(sources, key, training)
        if value is None:
            value = state.cache.put(compute(weight, scale), sources, key, training)
        return value

    def forget(self) -> None:
        """Drop all that is derived from the weights; called before each step of a training."""
        self.ternary.cache.clear()
        if self.ternary.network is not None:
            self.ternary.network.clear()

    @torch.no_grad()
    def is_ternary(self) -> bool:
        """Whether the latent weight is ternary itself."""
        return self.ternary.quantizer.is_quantized(self.to_filters(self.weight).float())

    @torch.no_grad()
    def snap(self) -> bool:
        """Set the latent weight to its ternary weight; its codes are its signs from then on.

        Returns:
            False if it was ternary before.
        """
        if self.is_ternary():
            return False
        filters = self.to_filters(self.weight).float()
        value, _ = self._quantize(filters, self.scale, Stage.TERNARY)
        self.weight.copy_(self.from_filters(value))
        return True

    @torch.no_grad()
    def codes_and_scale(self) -> tuple[Tensor, Tensor]:
        """Codes ``(F, N)`` and scale ``(S, G)``, float32, as things stand now."""
        filters = self.to_filters(self.weight).float()
        stage = self.current_stage(filters)
        codes = self._codes(filters, stage)
        quantizer = self.ternary.quantizer
        if stage is Stage.FROZEN:
            return codes, quantizer.scale_of_quantized(filters, codes)
        if self.scale is not None:
            return codes, self.scale.detach()
        return codes, quantizer.scale(filters, codes)

    @torch.no_grad()
    def codes_and_value(self) -> tuple[Tensor, Tensor]:
        """Codes (int8) and ternary weight (float32), shape of ``weight``, as things stand now."""
        codes, scale = self.codes_and_scale()
        value = self.ternary.quantizer.dequantize(codes, scale)
        return self.from_filters(codes.to(torch.int8)), self.from_filters(value)

    @torch.no_grad()
    def start_scale(self) -> None:
        """Set a learned scale to its closed form."""
        quantizer, filters = self.ternary.quantizer, self.to_filters(self.weight).float()
        self.scale.copy_(quantizer.scale(filters, self._codes(filters, Stage.TERNARY)))

    @property
    def is_chosen(self) -> bool:
        """Whether the layer's sparsity was chosen for the size of the file."""
        return self.sparsity is not None and 0 <= float(self.sparsity) < 1

    @torch.no_grad()
    def choose(self, sparsity: float) -> None:
        """Take a sparsity, and keep it in checkpoints where the size of the file is asked for."""
        if self.sparsity is not None:
            self.sparsity.fill_(sparsity)
            sparsity = float(self.sparsity)  # as a checkpoint will have it
        self.ternary.sparsity = sparsity
        self.forget()

    def current_stage(self, filters: Tensor) -> Stage:
        """The stage whose rule the forward pass follows now."""
        if self.ternary.stage is not None:
            return self.ternary.stage
        if not self.training and self.ternary.quantizer.is_quantized(filters):
            return Stage.FROZEN
        return Stage.TERNARY

    def _codes(self, filters: Tensor, stage: Stage) -> Tensor:
        if stage is Stage.FROZEN:
            return self.ternary.quantizer.codes_of_quantized(filters)
        state = self.ternary
        threshold = None if state.network is None else state.network.of(self)
        return state.quantizer.codes(filters, state.sparsity * state.ratio, threshold)

    def _quantize(self, filters: Tensor, scale: Tensor | None, stage: Stage):
        codes = self._codes(filters, stage)
        scale = None if scale is None else scale.detach()
        return forward_weight(
            filters, codes, scale, self.ternary.quantizer, stage, self.ternary.decay
        )

    def _value_and_rule(self, weight: Tensor, scale: Tensor | None) -> tuple[Tensor, Callable]:
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            filters = self.to_filters(weight.detach()).float()
            value, rule = self._quantize(filters, scale, self.current_stage(filters))
            return self.from_filters(value).to(weight.dtype), rule

    def _compute_forward_weight(self, weight: Tensor, scale: Tensor | None) -> Tensor:
        value, rule = self._value_and_rule(weight, scale)

        def weight_rule(grad):
            self.ternary.cache.clear()  # a step follows, and the memory can be had until then
            return self._gradients(grad, weight, rule)

        return substitute(value, weight, scale, weight_rule)

    def gradients(
        self, grad: Tensor, weight: Tensor, scale: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Those of weight and scale from that of what :meth:`value_and_rule` gave for them."""
        rule = self.value_and_rule(weight, scale)[1]
        self.ternary.cache.is_used = True  # a step follows, which may leave no trace
        return self._gradients(grad, weight, rule)

    def _gradients(self, grad: Tensor, weight: Tensor, rule: Callable):
        if self.ternary.stage is None:
            log_first_n(logging.WARNING, _UNTENDED, name="ptq_det", key="message")
        self.ternary.decay.start(weight._version)
        with torch.autocast(grad.device.type, enabled=False):
            latent_grad, scale_grad = rule(self.to_filters(grad).float())
        return self.from_filters(latent_grad).to(grad.dtype), scale_grad

    def _load_from_state_dict(self, state_dict, prefix, *args):
        found = prefix + "weight" in state_dict
        own = {"scale": self.scale, "sparsity": self.sparsity}
        # A float checkpoint does not lack these: what they are follows from the weights.
        lacks = [k for k, v in own.items() if v is not None and prefix + k not in state_dict]
        state_dict.update({prefix + key: own[key].detach().clone() for key in lacks})
        super()._load_from_state_dict(state_dict, prefix, *args)
        chosen = float(state_dict.get(prefix + "sparsity", -1.0))
        self.ternary.left = chosen if self.sparsity is None and chosen >= 0 else None
        self.ternary.loaded = self.ternary.loaded or found
        for key in lacks:
            del state_dict[prefix + key]
        if self.is_chosen:
            self.choose(float(self.sparsity))
        if "scale" in lacks:
            self.start_scale()

    def train(self, mode: bool = True):
        self.forget()
        return super().train(mode)

    def __setstate__(self, state):
        super().__setstate__(state)
        give_number(self)

    def __prepare_scriptable__(self):
        """Becomes a plain layer, for ``torch.jit.script`` changes the model that it is given."""
        from .ternarize import make_plain  # which knows layers

        log_first_n(logging.WARNING, SCRIPTED, name="ptq_det", key="message")
        make_plain(self)
        return self


class TernaryConv1d(TernaryLayer, nn.Conv1d):
    """A ternary ``torch.nn.Conv1d``."""

    def forward(self, input):
        return self._conv_forward(input, self.forward_weight(), self.bias)


class TernaryConv2d(TernaryLayer, Conv2d):
    """A ternary ``torch.nn.Conv2d``, or Detectron2's with norm and activation."""

    def forward(self, x):
        x = self._conv_forward(x, self.forward_weight(), self.bias)
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x


class TernaryConvTranspose2d(TernaryLayer, nn.ConvTranspose2d):
    """A ternary ``torch.nn.ConvTranspose2d``; its output channels are on dimension 1."""

    def to_filters(self, weight):
        return to_filters(weight, self.groups)

    def from_filters(self, filters):
        return from_filters(filters, self.weight.shape, self.groups)

    def forward(self, input, output_size=None):
        padding = self._output_padding(
            input, output_size, self.stride, self.padding, self.kernel_size, 2, self.dilation
        )
        return F.conv_transpose2d(
            input,
            self.forward_weight(),
            self.bias,
            self.stride,
            self.padding,
            padding,
            self.groups,
            self.dilation,
        )


class TernaryLinear(TernaryLayer, nn.Linear):
    """A ternary ``torch.nn.Linear``."""

    def forward(self, input):
        return F.linear(input, self.forward_weight(), self.bias)
