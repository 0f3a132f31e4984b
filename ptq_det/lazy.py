"""Detectron2's lazy configs: a model made ternary as part of the config, and what one says of it.

from detectron2.config import LazyCall as L
from ptq_det.lazy import ternary

model = L(ternary)(model=model, sparsity=0.8)

or, as tools/lazyconfig_train_net.py takes it too, a node of its own: ``ternary =
dict(sparsity=0.8)``.
"""

import logging
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from .errors import InputError
from .settings import TernarySettings
from .ternary.ternarize import ternarize

__all__ = ["makes_ternary", "model_node", "settings_in", "ternary", "training_sets"]


def ternary(model: nn.Module, **settings) -> nn.Module:
    """A model with its layers made ternary, in place.

    Args:
        model: as ``instantiate`` makes it of its own config.
        settings: as :meth:`ptq_det.settings.TernarySettings.make` has them.

    Raises:
        InputError: as :func:`~ptq_det.ternary.ternarize.ternarize`.
    """
    logging.getLogger("ptq_det").info("%s", ternarize(model, settings))
    return model


def model_node(cfg: Any) -> DictConfig | None:
    """The node of the float model in a lazy config, or in what is the model's node itself; None in
    what is neither, e.g. settings."""
    if not isinstance(cfg, DictConfig):
        return None
    node = cfg if "_target_" in cfg else cfg.get("model")
    if _is_ternary(node):
        node = node.get("model")
    return node if isinstance(node, DictConfig) else None


def settings_in(cfg: Any) -> TernarySettings:
    """What a lazy config says in its node ``ternary`` and in the call of :func:`ternary` that makes
    its model, together; the defaults where it has neither. Of what has no model, as
    ``TernarySettings.of``.

    Raises:
        InputError: a key is not known, a value not allowed, or the two contradict each other.
    """
    if model_node(cfg) is None:
        return TernarySettings.of(cfg)
    node = cfg if "_target_" in cfg else cfg.model
    call = _values(node) if _is_ternary(node) else {}
    own = _values(cfg.ternary) if node is not cfg and "ternary" in cfg else {}
    differ = sorted(key for key in call.keys() & own.keys() if call[key] != own[key])
    if differ:
        raise InputError(
            f"the config says {differ[0]} twice: {own[differ[0]]!r} in its node `ternary`, and "
            f"{call[differ[0]]!r} in the call of ptq_det.lazy.ternary that makes its model; leave "
            "one of them out"
        )
    return TernarySettings.make(**call, **{k: v for k, v in own.items() if k not in call})


def makes_ternary(cfg: DictConfig) -> bool:
    """Whether a whole lazy config says anything of ternary layers."""
    return "ternary" in cfg or _is_ternary(cfg.get("model"))


def training_sets(cfg: DictConfig) -> list[str]:
    """Names of the data sets that a lazy config trains on, where they stand as in Detectron2's."""
    found = OmegaConf.select(cfg, "dataloader.train.dataset.names")
    return [found] if isinstance(found, str) else list(found or [])


def _values(node: DictConfig) -> dict[str, Any]:
    """Keys and plain values of a node of settings, or of a call with settings."""
    values = {key: node[key] for key in node if key not in ("_target_", "model")}
    return {
        key: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in values.items()
    }


def _is_ternary(node: Any) -> bool:
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    return target is ternary or target == f"{__name__}.{ternary.__name__}"
