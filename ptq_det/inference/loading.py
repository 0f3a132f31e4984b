"""A packed file as a model that runs."""

import logging
import os

import torch
from detectron2.config import CfgNode
from omegaconf import DictConfig
from torch import nn

from ..engines import DEFAULT_ENGINE, ENGINE_REGISTRY, engine_named
from ..errors import EngineError
from ..packing.packed_model import PackedModel

__all__ = ["build_packed", "load_packed"]


def load_packed(
    path: str | os.PathLike,
    device: str | torch.device | None = None,
    engine: str | None = None,
    cfg: CfgNode | None = None,
    model: nn.Module | DictConfig | None = None,
) -> nn.Module:
    """The model in a packed file, ready to predict: in evaluation mode, without gradients.

    Args:
        path: file that ``pack_model`` or tools/pack.py wrote; an address of ``PathManager`` too.
        device: where to put it; without one, where the engine puts it: "float" on a GPU where
            there is one.
        engine: one of ``ENGINE_REGISTRY``: "float", or for a calibrated file "int8" (integers on
            the CPU) or "sparse" (the same by kernels that skip zeros). One that is named runs, or
            its reason is raised; without a name it is "float".
        cfg: as :func:`ptq_det.packed_config` has it.
        model: what the weights are for, ternary or plain, where the file's config does not build
            it, as a lazy config's; it is not changed, a copy is filled. Or the node of a lazy
            config that makes it, ``cfg.model``. A file never imports what it names.

    Raises:
        FileNotFoundError: there is no such file.
        PackedFileError: it is not a packed model that this version can read, or damaged, or for
            another model than the one that is given, or that has to be given.
        EngineError: the engine that was named cannot run it here; the message says why.
        InputError: there is no such engine.
    """
    if engine:
        engine_named(engine)  # a wrong name is said before the file is read
    return build_packed(PackedModel.read(path, base=cfg, model=model), device, engine)


def build_packed(
    packed: PackedModel, device: str | torch.device | None = None, engine: str | None = None
) -> nn.Module:
    """The model of a packed one; arguments and errors as :func:`load_packed`."""
    chosen = engine_named(engine or DEFAULT_ENGINE)
    try:
        reason = chosen.why_not(packed, device)
        if reason is not None:
            raise EngineError(reason)
        model = chosen.build(packed, device)
    except EngineError as error:
        file = packed.path or "this model"
        raise EngineError(f"the engine {chosen.name} cannot run {file}: {error}") from error
    logger = logging.getLogger("ptq_det")
    about = chosen.about()
    said = f"Engine: {chosen.name}{about and ', '}{about}"
    logger.info("%s", said if engine else f"{said}, as none was named; {_others(packed, device)}")
    return model


def _others(packed: PackedModel, device) -> str:
    """What the other engines would say to a model."""
    said = []
    for name, kind in ENGINE_REGISTRY:
        if name != DEFAULT_ENGINE:
            reason = kind().why_not(packed, device)
            said.append(f"{name} cannot: {reason}" if reason else f"{name} may be named")
    return "; ".join(said)
