"""``build_model(cfg)`` of Detectron2 makes ternary models where ``TERNARY.ENABLED`` says so.

Detectron2's tools, ``DefaultPredictor`` and projects all build by it, and know nothing of the node:
a float model in its place would train without a word, and with latent weights find nothing.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from fvcore.common.registry import Registry
from torch import nn

from ..engines import DEFAULT_ENGINE
from ..settings import TernarySettings
from ..ternary.ternarize import ternarize

__all__ = ["build_float_model", "honour_ternary"]


class _HonouringRegistry(Registry):
    """Gives networks of its own registrations as :func:`_honouring` has them."""

    def get(self, name: str) -> Any:
        found = super().get(name)
        return _honouring(found) if isinstance(found, type) else _honouring_function(found)


def honour_ternary() -> None:
    """Let every network that Detectron2 builds by a config be ternary where the config says so."""
    META_ARCH_REGISTRY.__class__ = _HonouringRegistry


def build_float_model(cfg: CfgNode) -> nn.Module:
    """The model of a config with its weights in float, whatever ``TERNARY`` says.

    Ternary builders that the config names still make ternary layers.
    """
    if "TERNARY" in cfg and cfg.TERNARY.ENABLED:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.TERNARY.ENABLED = False
    return build_model(cfg)


@functools.cache
def _honouring(kind: type) -> type:
    """A class that makes objects of another one, and makes them ternary if their config says so.

    It is a subclass, so that attributes, ``from_config`` and further subclasses are as they were.
    """

    class Meta(type(kind)):
        def __call__(cls, *args, **options):
            if cls is not Honouring:  # a subclass of somebody's
                return super().__call__(*args, **options)
            model = kind(*args, **options)
            cfg = args[0] if args else options.get("cfg")
            if isinstance(cfg, CfgNode) and "TERNARY" in cfg:
                _make_ternary(model, cfg)
            return model

        def __instancecheck__(cls, instance):
            return (
                isinstance(instance, kind)
                if cls is Honouring
                else super().__instancecheck__(instance)
            )

    class Honouring(kind, metaclass=Meta):
        pass

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Honouring, name, getattr(kind, name))
    return Honouring


def _honouring_function(function: Callable) -> Callable:
    """A function that makes the models of another one ternary if their config says so."""

    @functools.wraps(function)
    def build(cfg, *args, **options):
        model = function(cfg, *args, **options)
        if isinstance(cfg, CfgNode) and "TERNARY" in cfg:
            _make_ternary(model, cfg)
        return model

    return build


def _make_ternary(model: nn.Module, cfg: CfgNode) -> None:
    if not cfg.TERNARY.ENABLED:
        return
    logger = logging.getLogger("ptq_det")
    logger.info("%s", ternarize(model, cfg))
    engine = TernarySettings.from_cfg(cfg).engine
    if engine and engine != DEFAULT_ENGINE:
        logger.warning(
            "This model runs in float: TERNARY.ENGINE %s is for packed files, which "
            "ptq_det.load_packed and tools/train_net.py --eval-only run.",
            engine,
        )
