"""Checkpoints as other tools write them, and files that are none."""

import argparse
import collections
import datetime
import os
import pathlib
import re
import types
import zipfile
from collections.abc import Mapping, Set

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import InputError

__all__ = [
    "as_detectron2_has_it",
    "form_of",
    "read_weights",
    "trusted_scalars",
    "weights_in",
    "what_it_is",
]

# Where other tools put weights; the first that is there counts where a model does not tell.
_NAMES = ("model", "state_dict", "model_state_dict", "weights", "params", "net", "network")
_NAMES += ("generator", "model_ema", "ema", "ema_state_dict", "ema_state", "state_dict_ema")
_PREFIXES = ("module.", "model.", "_orig_mod.")  # of parallel, Lightning's and compiled models
_DEPTH = 3  # of dicts in dicts that are looked into
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
_NO_DICT = re.compile(r"has no attribute '(items|keys)'|is not iterable|__contains__")
_UNKNOWN = re.compile(r"[Uu]nsupported (?:global|class): (?:GLOBAL )?([\w.]+)")


def as_detectron2_has_it(loaded: dict, path: str, own: Mapping[str, Tensor]) -> dict:
    """A checkpoint whose weights are under ``model``, from one that has them elsewhere.

    Args:
        loaded: what Detectron2's checkpointer read; it takes a dict without ``model`` for weights,
            and a pickle for one of Caffe2 unless it says otherwise.
        path: of the file, for messages.
        own: the model's weights, before they are loaded.

    Raises:
        InputError: there are no weights in it, or they are no finite numbers.
    """
    held = loaded.get("model")
    if loaded.get("matching_heuristics") and not _found(held, own.keys(), nested=True):
        return loaded  # names of Caffe2 and others, which Detectron2 translates
    rest = {key: value for key, value in loaded.items() if key != "model"}
    if rest.get("__author__") == "Caffe2":  # said of any pickle, and not of what is inside
        rest = {"matching_heuristics": True} if held.get("matching_heuristics") else {}
    # Where "model" is a name or a number, the weights are beside it.
    source = held if _found(held, own.keys()) else loaded
    try:
        weights = weights_in(source, own.keys())
    except InputError as error:
        raise InputError(f"MODEL.WEIGHTS {path!r} {error}") from error
    # Buffers may hold infinities by design, and other models' weights may hold what they like.
    counts = {n: x for n, x in weights.items() if n in own and _is_finite(own[n])}
    _refuse_infinite(counts, f"MODEL.WEIGHTS {path!r}")
    return {**rest, "model": weights}


def _refuse_infinite(weights: dict[str, Tensor], what: str) -> None:
    name = next((name for name, value in weights.items() if not _is_finite(value)), None)
    if name is not None:
        raise InputError(
            f"{what} cannot be used: {name} holds values that are no finite numbers (its training "
            "diverged?); give an earlier checkpoint"
        )


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.float()).all())


def weights_in(held, own: Set[str] = frozenset()) -> dict[str, Tensor]:
    """The weights in what was read: the dict that has most of a model's names, or the likeliest.

    Prefixes of wrappers are taken off names; NumPy's arrays become tensors; what else is among the
    weights, such as a number of epochs, is left out.

    Args:
        held: anything that a checkpoint may be.
        own: names of the model's weights.

    Raises:
        InputError: there are no weights in it.
    """
    found = _found(held, own)
    if not found:
        raise InputError(f"holds no weights by name, but {_described(held)}")
    best = max(found, key=lambda weights: (len(weights.keys() & own), len(weights)))
    try:
        return {name: _tensor(value) for name, value in best.items()}
    except (TypeError, ValueError) as error:
        raise InputError(f"holds arrays that are no weights ({error})") from error


def _found(held, own: Set[str], nested: bool = False) -> list[dict]:
    """Dicts of weights in what was read, the likeliest first; with ``nested`` those inside it."""
    return [
        _without_prefixes(weights, own)
        for depth in range(1 if nested else 0, _DEPTH)
        for each in _at(held, depth)
        if (weights := {key: x for key, x in each.items() if _is_weight(key, x, own)})
    ]


def _at(held, depth: int) -> list[dict]:
    """Dicts at a depth, those under well-known names first."""
    if not isinstance(held, dict):
        return []
    if depth == 0:
        return [held]
    order = [*(name for name in _NAMES if name in held), *(k for k in held if k not in _NAMES)]
    return [inner for name in order for inner in _at(held[name], depth - 1)]


def _is_weight(key, value, own: Set[str]) -> bool:
    if not isinstance(key, str):
        return False
    is_array = isinstance(value, (Tensor, np.ndarray))
    is_number = isinstance(value, (int, float, np.generic)) and not isinstance(value, bool)
    return is_array or (is_number and key in own)


def _tensor(value) -> Tensor:
    if isinstance(value, np.ndarray):  # of another machine's byte order, or read-only
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    return torch.as_tensor(value)


def _without_prefixes(weights: dict, own: Set[str]) -> dict:
    """Names without the prefixes of wrappers, where no name is the model's or all have it."""
    while not weights.keys() & own:
        prefix = next((p for p in _PREFIXES if all(name.startswith(p) for name in weights)), None)
        if prefix is None:
            shorter = [
                {n.removeprefix(p): x for n, x in weights.items() if n.startswith(p)}
                for p in _PREFIXES
            ]
            fitting = [each for each in shorter if each.keys() & own]
            return fitting[0] if fitting else weights
        weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _described(held) -> str:
    if not isinstance(held, dict):
        return f"an object of the class {type(held).__name__}"
    names = [str(name) for name in held]
    more = ", …" if len(names) > 8 else ""
    return f"a dict of {', '.join(names[:8])}{more}" if names else "an empty dict"


def trusted_scalars():
    """Lets ``torch.load`` read what some tools leave beside the weights, or make weights of.

    NumPy's arrays and numbers, paths, times and records of options: data, none of which runs code
    where it is read.
    """
    scalar = np.float64(0).__reduce__()[0]
    rebuild = np.zeros(1).__reduce__()[0]
    kinds = [
        (function, f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for function, name in ((scalar, "scalar"), (rebuild, "_reconstruct"))
    ]
    for module in ("pathlib", "pathlib._local"):  # as Python 3.13 has it
        for system in ("Posix", "Windows"):  # the other system's paths cannot be built as paths
            pure = getattr(pathlib, f"Pure{system}Path")
            kinds += [(pure, f"{module}.{system}Path"), (pure, f"{module}.Pure{system}Path")]
    dtypes = {type(np.dtype(kind)) for kind in "?bhilqBHILQefdFDSUOMm"}
    plain = [argparse.Namespace, types.SimpleNamespace, collections.deque]
    times = [datetime.datetime, datetime.date, datetime.timedelta]
    return torch.serialization.safe_globals([*kinds, np.ndarray, np.dtype, *dtypes, *plain, *times])


def read_weights(path: str) -> dict[str, Tensor]:
    """The weights in a file of any form but a packed model's, wherever they are in it.

    Raises:
        InputError: there are none, or it cannot be read.
    """
    try:
        if form_of(path) == "safetensors":
            held = load_file(path)
        else:
            with trusted_scalars(), open(path, "rb") as file:
                held = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"weights {path!r} not found") from None
    except OSError as error:
        raise InputError(f"weights {path!r} cannot be read: {error}") from error
    except Exception as error:  # unpickling may end in anything
        raise what_it_is(path, error, "weights") from error
    try:
        weights = weights_in(held)
    except InputError as error:
        raise InputError(f"weights {path!r}: the file {error}") from error
    _refuse_infinite(weights, f"weights {path!r}")
    return weights


def form_of(path: str) -> str:
    """``torch``, ``safetensors`` or nothing, by a file's first bytes, whatever it is called."""
    with open(path, "rb") as file:
        start = file.read(9)
    if start.startswith(b"PK\x03\x04"):
        return "torch"
    is_header = start[8:] == b"{" and int.from_bytes(start[:8], "little") < os.path.getsize(path)
    return "safetensors" if is_header else ""


def what_it_is(path: str, error: Exception, key: str = "MODEL.WEIGHTS") -> InputError:
    """The error to raise where a file could not be read as a checkpoint, by what it holds.

    Args:
        path: of the file.
        error: that reading ended in.
        key: what names the file.
    """
    reason = _ESCAPES.sub("", str(error)).strip()
    unknown = _UNKNOWN.search(reason)
    if why := _by_its_start(path):
        pass
    elif unknown:
        why = (
            f"whole, but holds Python objects ({unknown[1]}), which are not read, as they could "
            "run code; where you trust it, save its weights alone: "
            "torch.save({'model': model.state_dict()}, …)"
        )
    elif _NO_DICT.search(reason):
        why = "whole, but holds no weights by name"
    elif form_of(path) == "torch" and not zipfile.is_zipfile(path):
        why = "cut, or no checkpoint (its end is missing); get it again"
    else:
        first = (reason.splitlines() or [""])[0][:200]
        why = f"cut, or no checkpoint ({type(error).__name__}{': ' if first else ''}{first})"
    return InputError(f"{key} {path!r} cannot be read: it is {why}")


def _by_its_start(path: str) -> str:
    with open(path, "rb") as file:
        start = file.read(200).lstrip()
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself; get that with `git lfs pull`"
    if start[:1] == b"<" or start[:9].lower() == b"<!doctype":
        return "a web page, not a checkpoint; download the file itself"
    return "" if start else "empty"
