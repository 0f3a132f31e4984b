"""Whether a training can go on from the checkpoint that its folder has."""

import os

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from ..errors import InputError
from ..settings import TernarySettings

__all__ = ["KIND", "check_resume", "kind_of"]

KIND = "ternary_kind"  # in the trainer's state: what was trained


def kind_of(cfg) -> str:
    """What a config trains: the quantizer, or "float"."""
    is_ternary = TernarySettings.is_ternary_config(cfg)
    return TernarySettings.from_cfg(cfg).quantizer if is_ternary else "float"


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
    if not checkpointer.has_checkpoint():
        names = sorted(n for n in _files(folder) if n.startswith("model_") and n.endswith(".pth"))
        if names:
            raise InputError(
                f"{folder} has checkpoints (the last by name is {names[-1]}), but no file "
                "last_checkpoint that says which to go on from. Write the name of one into it, or "
                "start anew without --resume"
            )
        return
    path = checkpointer.get_checkpoint_file()
    if not os.path.isfile(path):
        raise InputError(
            f"{folder}/last_checkpoint names {os.path.basename(path) or 'nothing'!r}, which is not "
            "there. Write the name of a checkpoint into it, or start anew without --resume"
        )
    try:
        held = torch.load(path, map_location="cpu", mmap=True)
        state, trainer = held["model"], held["trainer"]
        groups = trainer["_trainer"]["optimizer"]["param_groups"]
    except Exception as error:  # unpickling may end in anything
        raise InputError(
            f"{path} cannot be resumed from: it is cut, or no checkpoint of a training ({error}). "
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
    own = optimizer.state_dict()["param_groups"]
    if not groups or groups[0].keys() != own[0].keys():
        raise InputError(f"{path} is of a training with another optimizer{end}")
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in own]:
        raise InputError(
            f"{path} is of a training in which other layers were frozen or other parameters were "
            f"trained{end}"
        )


def _files(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []
