"""Checkpoints as other tools write them, and files that are none."""

import numpy as np
import torch

from ..errors import InputError

__all__ = ["as_detectron2_has_it", "trusted_scalars", "what_it_is"]

_NAMES = ("state_dict", "model_ema", "ema", "model_state_dict", "ema_state_dict", "params", "net")


def as_detectron2_has_it(loaded: dict) -> dict:
    """A checkpoint whose weights are under ``model``, from one that has them elsewhere.

    Lightning and MMDetection have ``state_dict``, others an average of the weights (EMA) alone.

    Args:
        loaded: what Detectron2's checkpointer read; it takes a dict without ``model`` for weights.
    """
    weights = loaded.get("model")
    if not isinstance(weights, dict):
        return loaded
    for name in _NAMES:
        inner = weights.get(name)
        if isinstance(inner, dict) and any(isinstance(x, torch.Tensor) for x in inner.values()):
            return {**loaded, "model": inner}
    return loaded


def trusted_scalars():
    """Lets ``torch.load`` read NumPy's numbers, which some tools leave beside the weights."""
    scalar = np.float64(0).__reduce__()[0]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    kinds = {type(np.dtype(kind)) for kind in "?bhilqBHILQefd"}
    return torch.serialization.safe_globals([*names, np.dtype, *kinds])


def what_it_is(path: str, error: Exception) -> InputError:
    """The error to raise where a file could not be read as a checkpoint, by what it holds."""
    with open(path, "rb") as file:
        start = file.read(200).lstrip()
    if start.startswith(b"version https://git-lfs"):
        why = "a pointer of Git LFS, not the file itself; get that with `git lfs pull`"
    elif start[:1] == b"<" or start[:9].lower() == b"<!doctype":
        why = "a web page, not a checkpoint; download the file itself"
    elif not start:
        why = "empty"
    else:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        why = f"cut, or no checkpoint ({reason[0][:200]})"
    return InputError(f"MODEL.WEIGHTS {path!r} cannot be read: it is {why}")
