"""The hook that rounds a model, after the last step, to what its packed file will hold."""

from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase

from ..packing.rounding import round_to_packed
from ..settings import TernarySettings
from ..ternary.schedule import Stage
from ..ternary.ternarize import ternary_layers

__all__ = ["RoundingHook"]


class RoundingHook(HookBase):
    """Rounds where codes are frozen. It stands behind all that changes weights or norms, and before
    what saves and evaluates them.

    Args:
        cfg: full config, or settings as :meth:`ptq_det.settings.TernarySettings.of` takes them.
    """

    def __init__(self, cfg: CfgNode | TernarySettings | Mapping[str, Any]):
        self._float_layers = TernarySettings.of(cfg).float_layers

    def after_step(self):
        if self.trainer.iter + 1 < self.trainer.max_iter:
            return
        layers = ternary_layers(self.trainer.model).values()
        if any(layer.ternary.stage is Stage.FROZEN for layer in layers):
            round_to_packed(self.trainer.model, self._float_layers)
