"""The forward weight that was last computed, and whether it still is the one."""

from typing import Any

import torch
from torch import Tensor

from .steps import optimizer_steps

__all__ = ["ForwardWeightCache", "can_cache"]


def can_cache() -> bool:
    """Whether what is computed now may be kept: tensors inside a transform of ``torch.func`` end
    with it, and have no memory to know them by."""
    return torch._C._functorch.peek_interpreter_stack() is None


class ForwardWeightCache:
    """Keeps a forward weight as long as what it was derived from stays as it is.

    In training that is until a backward pass or an optimizer's step, or a change that PyTorch
    counts, so that nothing is read back from a GPU. Otherwise a copy of what it was derived from is
    compared: weights that are set through ``.data``, averages that are put in their place and
    weights made in inference mode leave no other trace. Copies and pickles of a model start without
    it.

    Attributes:
        is_used: whether a backward pass of compiled code has gone through what is kept.
    """

    def __init__(self):
        self.clear()

    def clear(self) -> None:
        """Forget it."""
        self._kept = None  # key, sources and value: whole at any time, for other threads
        self.is_used = False

    def get(self, sources: list[Tensor], key: tuple, training: bool) -> Any:
        """What was kept, or None where it has to be computed.

        Args:
            sources: what it is derived from.
            key: of all else.
            training: whether it is used to train.
        """
        kept = self._kept
        if kept is None:
            return None
        kept_key, kept_sources, value = kept
        fits = kept_key == self._whole_key(sources, key, training)
        if fits and not training:
            fits = all(map(torch.equal, sources, kept_sources))
        return value if fits else None

    def put(self, value: Any, sources: list[Tensor], key: tuple, training: bool) -> Any:
        """Keep a value; arguments as of :meth:`get`."""
        # Memory that is held is not given to another weight, which would look like this one.
        copies = [x.detach() if training else x.detach().clone() for x in sources]
        self._kept = (self._whole_key(sources, key, training), copies, value)
        return value

    @staticmethod
    def _whole_key(sources: list[Tensor], key: tuple, training: bool) -> tuple:
        modes = (training, torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        if not training:
            return (*key, *modes, [(x.dtype, x.device, x.shape) for x in sources])
        versions = [(x.data_ptr(), x._version) for x in sources]
        return (*key, *modes, optimizer_steps(), versions)

    def __deepcopy__(self, memo):
        return ForwardWeightCache()

    def __reduce__(self):
        return ForwardWeightCache, ()
