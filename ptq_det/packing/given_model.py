"""The model that the reader of a file gives, where no config of the file builds one."""

import copy

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn

from ..errors import InputError
from ..ternary.ternarize import restore_classes, unwrap
from .packable import check_states
from .skeleton import WithoutRandomWeights

__all__ = ["emptied_copy", "given_model"]


def given_model(model: nn.Module | DictConfig) -> nn.Module:
    """A module as it is, or the one that a node of a lazy config makes.

    Raises:
        InputError: it is neither, or the node makes none, or it has states that no file holds.
    """
    if isinstance(model, nn.Module):
        model = unwrap(model)
        check_states(model)
        return model
    if not isinstance(model, DictConfig) or "_target_" not in model:
        raise InputError(
            f"model is {type(model).__name__}; give a module, or the node of one in a lazy config, "
            "e.g. cfg.model"
        )
    try:
        with WithoutRandomWeights():
            made = instantiate(model)
    except InputError:
        raise
    except Exception as error:  # a config of the reader's may end in anything
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise InputError(f"the model of the lazy config cannot be built ({reason})") from error
    if not isinstance(made, nn.Module):
        raise InputError(f"the lazy config makes {type(made).__name__}, which is no module")
    check_states(made)
    return made


def emptied_copy(model: nn.Module, device: str) -> nn.Module:
    """A plain copy of a model on a device, in which what a file holds has arbitrary values.

    What a file does not hold, as the anchors, is copied.

    Args:
        model: ternary or plain; it is not changed.
        device: "cpu", or "meta" for shapes alone.
    """
    held = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}
    emptied = {}
    for key, tensor in held.items():
        empty = torch.empty_like(tensor, device=device, requires_grad=False)
        emptied[key] = (
            nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty
        )
    made = copy.deepcopy(model, emptied)
    restore_classes(made)
    return made if device == "meta" else made.to(device)
