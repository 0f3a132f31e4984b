"""Whether a training can go on from the checkpoint that its folder has."""

import logging
import os

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager
from torch import nn

from ..errors import InputError
from ..settings import TernarySettings
from .foreign import trusted_scalars

__all__ = ["KIND", "check_resume", "kind_of", "last_checkpoint"]

KIND = "ternary_kind"  # in the trainer's state: what was trained


def kind_of(cfg) -> str:
    """What a config trains: the quantizer, or "float"."""
    is_ternary = TernarySettings.is_ternary_config(cfg)
    return TernarySettings.from_cfg(cfg).quantizer if is_ternary else "float"


def last_checkpoint(folder: str) -> str | None:
    """The checkpoint that a training's folder says to go on from; None where it has none at all.

    Raises:
        InputError: the folder has checkpoints, but does not say which, or names one that is lost.
    """
    file = os.path.join(folder, "last_checkpoint")
    cure = "Write the name of a checkpoint of the folder into it, or leave --resume out"
    if not PathManager.exists(file):
        names = sorted(n for n in _files(folder) if n.startswith("model_") and n.endswith(".pth"))
        if names:
            raise InputError(
                f"{folder} has checkpoints (the last by name is {names[-1]}), but no file "
                f"last_checkpoint that says which to go on from. {cure}"
            )
        return None
    try:
        with PathManager.open(file, "rb") as source:
            name = source.read(4096).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is no text that can be read ({error}). {cure}") from error
    path = os.path.join(folder, name)
    if not name or "\0" in name or not PathManager.isfile(path):
        raise InputError(f"{file} names {name[:80] or 'nothing'!r}, which is not there. {cure}")
    return path


def check_resume(
    checkpointer: DetectionCheckpointer, model: nn.Module, optimizer: torch.optim.Optimizer, cfg
) -> None:
    """Refuse to go on from a checkpoint of another run.

    Args:
        checkpointer: of the training's folder.
        model: that goes on, not wrapped.
        optimizer: of the model.
        cfg: full config.

    Raises:
        InputError: the folder's last checkpoint is lost or cut, or of another model, optimizer or
            quantizer; the message says what to do.
    """
    folder = checkpointer.save_dir
    path = last_checkpoint(folder)
    if path is None:
        return
    try:
        with trusted_scalars():
            held = torch.load(PathManager.get_local_path(path), map_location="cpu", mmap=True)
        state, trainer = held["model"], held["trainer"]
        groups = trainer["_trainer"]["optimizer"]["param_groups"]
    except Exception as error:  # unpickling may end in anything
        raise InputError(
            f"{path} cannot be resumed from: it is cut, or no checkpoint of a training "
            f"({type(error).__name__}). "
            "Write the name of another one into last_checkpoint, or start anew without --resume"
        ) from error
    end = f"; start anew, without --resume and with another OUTPUT_DIR than {folder!r}"
    was, now = trainer.get(KIND), kind_of(cfg)
    if was is not None and was != now:
        raise InputError(f"{path} is of a {was} training, and this one is {now}{end}")
    for name, value in model.state_dict().items():
        if name in state and state[name].shape != value.shape:
            raise InputError(
                f"{path} is of another model: {name!r} has the shape {tuple(state[name].shape)} "
                f"there and {tuple(value.shape)} here (another number of classes?){end}"
            )
    _check_iterations(path, held.get("iteration"), cfg.SOLVER.MAX_ITER, end)
    own = optimizer.state_dict()["param_groups"]
    if not groups or groups[0].keys() != own[0].keys():
        raise InputError(f"{path} is of a training with another optimizer{end}")
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in own]:
        raise InputError(
            f"{path} is of a training in which other layers were frozen or other parameters were "
            f"trained{end}"
        )


def _check_iterations(path: str, last, most: int, end: str) -> None:
    """Refuse a checkpoint beyond the last iteration; one at it is evaluated and packed again."""
    if not isinstance(last, int):
        return
    if last >= most:
        raise InputError(
            f"{path} has had {last + 1} iterations, and SOLVER.MAX_ITER is {most}: raise it above "
            f"{last + 1} to go on{end}"
        )
    if last + 1 == most:
        logging.getLogger(__name__).warning(
            "%s has had all %d iterations of SOLVER.MAX_ITER: it is packed and evaluated, and not "
            "trained any more",
            path,
            most,
        )


def _files(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []
