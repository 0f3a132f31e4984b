"""Loads a checkpoint for a model that is to be packed or evaluated: every layer has to be in it."""

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from torch import nn

from ..errors import InputError
from ..settings import TernarySettings
from ..ternary.layers import OWN_KEYS

__all__ = ["load_filled"]

_SHOWN = 12  # names in the message


class _Checkpointer(DetectionCheckpointer):
    """Remembers what the checkpoint did not fill."""

    missing: list[str] | None = None
    unlike: list[tuple] = []  # noqa: RUF012  (replaced, never changed)

    def _load_model(self, checkpoint):
        incompatible = super()._load_model(checkpoint)
        self.missing = list(incompatible.missing_keys)
        self.unlike = list(incompatible.incorrect_shapes)
        return incompatible


def load_filled(
    model: nn.Module, cfg: CfgNode | TernarySettings, weights: str | None = None
) -> None:
    """Load ``MODEL.WEIGHTS``, or other weights, into a model.

    Args:
        model: changed in place.
        cfg: full config, or settings. With ``TERNARY.REQUIRE_TRAINED False`` layers may stay as
            they are.
        weights: a file to load in place of ``MODEL.WEIGHTS``.

    Raises:
        InputError: a layer's weights are not in the checkpoint, or have another shape there.
    """
    what = "MODEL.WEIGHTS" if weights is None else "the checkpoint"
    weights = cfg.MODEL.WEIGHTS if weights is None else weights
    checkpointer = _Checkpointer(model)
    checkpointer.load(weights, checkpointables=[])
    if not TernarySettings.of(cfg).require_trained:
        return
    names = {name for name, _ in model.named_parameters()}
    names |= {name for name, _ in model.named_buffers() if "running_" in name}
    own = tuple(f".{key}" for key in OWN_KEYS)
    missing = names if checkpointer.missing is None else names & set(checkpointer.missing)
    missing = sorted(name for name in missing if not name.endswith(own))
    unlike = [
        f"{n}: {tuple(a)} in the checkpoint, {tuple(b)} here" for n, a, b in checkpointer.unlike
    ]
    if not missing and not unlike:
        return
    lines = [*unlike, *missing]
    more = f"\n  and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    raise InputError(
        f"{len(lines)} weights of the model were not loaded from {what} {weights!r}, so they are "
        "random:\n  "
        + "\n  ".join(lines[:_SHOWN])
        + more
        + "\nGive a checkpoint of this very model (MODEL.ROI_HEADS.NUM_CLASSES or "
        "MODEL.RETINANET.NUM_CLASSES included), or, where sizes alone count, set "
        "TERNARY.REQUIRE_TRAINED False."
    )
