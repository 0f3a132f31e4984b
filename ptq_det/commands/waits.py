"""What lets the host wait for a GPU: values and shapes that it has to know."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["HostReads", "count_waits"]

_READS = (
    "_local_scalar_dense",
    "aten.bincount",
    "aten.equal.default",
    "aten.masked_select",
    "aten.nonzero.default",
)


class HostReads(TorchDispatchMode):
    """Notes, on any device, the operators that would let the host wait for a GPU, in ``found``.

    It sees what is read of tensors on the CPU too, and no copies between devices.
    """

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        if any(read in name for read in _READS) or _by_mask(name, args):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


def _by_mask(name: str, args: tuple) -> bool:
    """Whether an operator takes the places that a mask has, whose number only the device knows."""
    indices = args[1] if len(args) > 1 and name.startswith("aten.index") else None
    return isinstance(indices, (list, tuple)) and any(
        isinstance(each, Tensor) and each.dtype == torch.bool for each in indices
    )


@contextmanager
def count_waits(device: str) -> Iterator[list[str]]:
    """A list that has, once the context is left, an entry for each time the host waited.

    Of a GPU these are PyTorch's own warnings; on a CPU, what :class:`HostReads` finds.
    """
    waits: list[str] = []
    if not device.startswith("cuda"):
        with HostReads() as reads:
            yield waits
        waits += reads.found
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield waits
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits += [str(each.message) for each in caught if "synchronizing" in str(each.message)]
