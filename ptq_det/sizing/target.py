"""Zeros by layer for a packed file of a size: chosen, or those by hand moved, before a fine-tuning;
kept to when codes freeze."""

import itertools
import logging
import math
import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from detectron2.utils import comm
from torch import nn
from tqdm import tqdm

from ..compensation.inputs import has_plain_inputs
from ..compensation.whole_model import plain_copy
from ..errors import InputError
from ..files import MIB
from ..ternary.layers import TernaryLayer
from ..ternary.ternarize import ternary_layers
from .choice import FARTHEST, choose, least_error, meet, shifted
from .file_size import FileSize
from .observation import Observation, observe
from .sensitivity import SPARSITIES, LayerSensitivity, measure_layer

__all__ = [
    "BATCHES",
    "check_resumed",
    "check_size",
    "choose_zeros",
    "keep_size",
    "measure_layers",
    "move_zeros",
    "observe_layers",
]

BATCHES = 4  # of training pictures that errors are measured on
_BELOW, _WITHIN = 0.995, 0.004  # of the target: what is aimed at, and how near is near enough
_ROUNDS = 8  # to choose zeros that meet it
_FEWEST, _MOST = 0.45, 0.99  # zeros that a layer is moved to


def observe_layers(model: nn.Module, batches: Iterable[list[dict]]) -> dict[str, Observation]:
    """What the layers whose inputs can be looked at do in the float model, by name.

    Args:
        model: with ternary layers whose latent weights are those of a float model; not changed.
        batches: of training pictures; :data:`BATCHES` of them are used.
    """
    names = [name for name, x in ternary_layers(model).items() if has_plain_inputs(x)]
    return observe(plain_copy(model), names, itertools.islice(batches, BATCHES))


def measure_layers(model: nn.Module, seen: dict[str, Observation]) -> list[LayerSensitivity]:
    """Error and bytes by zeros of each layer that was seen; the model is that of
    :func:`observe_layers`."""
    layers = ternary_layers(model)
    return [
        measure_layer(name, layers[name], seen[name], SPARSITIES)
        for name in tqdm(seen, "Measuring what zeros cost and save")
    ]


def choose_zeros(model: nn.Module, cfg, batches: Iterable[list[dict]], target: float) -> None:
    """Give layers the zeros of least error with which the packed file has a size, at most 1 % less.

    Layers whose inputs cannot be looked at, or that no picture reached, keep the sparsity they
    have. The first process chooses for all.

    Args:
        model: with ternary layers whose latent weights are those of a float model.
        cfg: as :func:`ptq_det.pack_model` takes it.
        batches: of training pictures.
        target: size of the file in MiB.

    Raises:
        InputError: the file cannot be that small.
    """
    seen = observe_layers(model, batches)  # in all processes, whose norms may wait for each other
    _give(model, _in_first_process(lambda: _zeros(model, cfg, seen, target)))


def move_zeros(model: nn.Module, cfg, target: float) -> None:
    """Move the zeros that layers have, by the same in log-odds, until the packed file has a size,
    at most 1 % less.

    Arguments and errors are those of :func:`choose_zeros`.
    """
    layers = ternary_layers(model)
    _give(model, _in_first_process(lambda: _moved_to(model, cfg, layers, target)))


def keep_size(model: nn.Module, cfg, target: float, by_hand: bool) -> None:
    """Move the zeros of all layers that got them for the size, by the same in log-odds, until the
    packed file has it again. Weights have moved since.

    Zeros of least error, of a file that is smaller than was asked for, are left as they are.

    Arguments are those of :func:`choose_zeros`; latent weights are not ternary yet.

    Args:
        by_hand: whether they were moved (:func:`move_zeros`), not chosen.
    """
    layers = {n: layer for n, layer in ternary_layers(model).items() if layer.is_chosen}
    # Those of least error are measured points; those chosen for a size lie between such points.
    least = not by_hand and all(_is_measured(x.ternary.sparsity) for x in layers.values())
    _give(model, _in_first_process(lambda: _moved(model, cfg, layers, target, up=least)[0]))


def check_resumed(model: nn.Module, cfg, target: float) -> None:
    """Refuse a size that the zeros of a checkpoint cannot be moved to any more when codes freeze;
    warn where codes are final and take more.

    Arguments and errors are those of :func:`move_zeros`.
    """
    layers = {n: layer for n, layer in ternary_layers(model).items() if layer.is_chosen}
    _in_first_process(lambda: _check_resumed(model, cfg, layers, target))


def check_size(path: str | os.PathLike, target: float) -> None:
    """Log how a finished file stands to the size that was asked for."""
    size = os.path.getsize(path) / MIB
    logger = logging.getLogger("ptq_det")
    if size > target:
        logger.warning("The file has %.3f MiB, more than TERNARY.TARGET_MIB %g", size, target)
    else:
        logger.info("The file has %.3f MiB of TERNARY.TARGET_MIB %g", size, target)


def _zeros(model: nn.Module, cfg, seen: dict[str, Observation], target: float) -> dict[str, float]:
    curves = measure_layers(model, seen)
    layers = ternary_layers(model)
    size = FileSize(model, cfg, {curve.name: layers[curve.name] for curve in curves})
    logger = logging.getLogger("ptq_det")
    smallest = size.of({curve.name: SPARSITIES[-1] for curve in curves})
    _refuse_below(smallest, SPARSITIES[-1], size, target)
    zeros = least_error(curves)
    best = size.of(zeros)
    if best <= target * MIB:
        logger.info(
            "TERNARY.TARGET_MIB is %g; the zeros of least error leave %.2f MiB, and fewer would "
            "not help",
            target,
            best / MIB,
        )
        return zeros
    aim = budget = _BELOW * target * MIB - size.rest
    for _ in range(_ROUNDS):
        zeros = choose(curves, budget)
        found = size.codes(zeros)
        if abs(found - aim) <= _WITHIN * target * MIB:
            break
        budget *= aim / found  # curves are straight between their points, and bytes are not
    _log(zeros, curves, size.rest + found)
    return zeros


def _log(zeros: dict[str, float], curves: list[LayerSensitivity], size: int) -> None:
    weights = {curve.name: curve.weights for curve in curves}
    mean = sum(zeros[name] * count for name, count in weights.items()) / sum(weights.values())
    logging.getLogger("ptq_det").info(
        "Zeros by layer for a file of %.2f MiB: %.1f %% of %d layers (%s)",
        size / MIB,
        100 * mean,
        len(zeros),
        ", ".join(f"{name} {value:.3f}" for name, value in zeros.items()),
    )


def _moved_to(model, cfg, layers: dict[str, TernaryLayer], target: float) -> dict[str, float]:
    zeros, found = _moved(model, cfg, layers, target)
    if found > target * MIB:
        _refuse_unreachable(FileSize(model, cfg, layers), layers, target)
    elif found < (_BELOW - _WITHIN) * target * MIB:
        logging.getLogger("ptq_det").warning(
            "TERNARY.TARGET_MIB is %g, but with %.0f %% zeros in the layers that had as many or "
            "more the file has %.2f MiB, and fewer zeros take no more bytes",
            target,
            100 * _FEWEST,
            found / MIB,
        )
    return zeros


def _moved(
    model, cfg, layers: dict[str, TernaryLayer], target: float, up: bool = False
) -> tuple[dict[str, float], int]:
    """Sparsity of each layer, by name, and the bytes that the file has with them.

    Args:
        up: only where the file is larger than the target.
    """
    own = {name: layer.ternary.sparsity for name, layer in layers.items()}
    size, aim = FileSize(model, cfg, layers), _BELOW * target * MIB
    before = size.of(own)
    if up and before <= target * MIB:
        return own, before

    def zeros_at(shift: float) -> dict[str, float]:
        return {name: _shifted(value, shift) for name, value in own.items()}

    shift, found = meet(lambda x: size.of(zeros_at(x)), before, aim, _WITHIN * target * MIB)
    logging.getLogger("ptq_det").info(
        "Zeros moved by %+.3f in log-odds: a file of %.3f MiB -> %.3f MiB",
        shift,
        before / MIB,
        found / MIB,
    )
    return zeros_at(shift), found


def _check_resumed(model, cfg, layers: dict[str, TernaryLayer], target: float) -> None:
    size = FileSize(model, cfg, layers)
    if size.now <= target * MIB:
        return
    if any(not layer.is_ternary() for layer in layers.values()):
        _refuse_unreachable(size, layers, target)
    else:
        logging.getLogger("ptq_det").warning(
            "TERNARY.TARGET_MIB is %g, but the codes of the checkpoint are final, and the file has "
            "%.2f MiB: start anew, without --resume, for a smaller one",
            target,
            size.now / MIB,
        )


def _refuse_unreachable(size: FileSize, layers: dict[str, TernaryLayer], target: float) -> None:
    most = {name: _shifted(x.ternary.sparsity, FARTHEST) for name, x in layers.items()}
    _refuse_below(size.of(most), _MOST, size, target)


def _is_measured(sparsity: float) -> bool:
    return any(math.isclose(sparsity, value, rel_tol=1e-6) for value in SPARSITIES)


def _shifted(own: float, shift: float) -> float:
    """A sparsity moved within what layers are moved to; one that is beyond it goes no further."""
    return min(max(_MOST, own), max(shifted(own, shift), min(own, _FEWEST)))


def _refuse_below(smallest: int, most: float, size: FileSize, target: float) -> None:
    if smallest > target * MIB:
        raise InputError(
            f"TERNARY.TARGET_MIB is {target:g}, but with {most:.0%} zeros in the layers whose "
            f"zeros it sets the packed file has {smallest / MIB:.2f} MiB already, "
            f"{size.rest / MIB:.2f} of them for what is not ternary: ask for more than that"
        )


def _give(model: nn.Module, zeros: dict[str, float]) -> None:
    layers = ternary_layers(model)
    for name, value in zeros.items():
        layers[name].choose(value)


def _in_first_process(compute: Callable[[], Any]) -> Any:
    """What the first process computes, in all; an error of the user's is raised in all."""
    if comm.get_world_size() == 1:
        return compute()
    box = [None]
    if comm.is_main_process():
        try:
            box = [compute()]
        except InputError as error:
            box = [error]
    torch.distributed.broadcast_object_list(box, src=0)
    if isinstance(box[0], InputError):
        raise box[0]
    return box[0]
