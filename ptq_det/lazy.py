"""For Detectron2's lazy configs: a model made ternary as part of the config.

from detectron2.config import LazyCall as L
from ptq_det.lazy import ternary

model = L(ternary)(model=model, sparsity=0.8)
"""

import logging

from torch import nn

from .ternary.ternarize import ternarize

__all__ = ["ternary"]


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
