"""Zeros for the size that ``TERNARY.TARGET_MIB`` asks for, over a fine-tuning."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml
from detectron2.utils import comm
from torch import nn

from ..errors import InputError
from ..files import replacing
from ..settings import TernarySettings
from ..sizing.target import BATCHES, check_resumed, choose_zeros, keep_size, move_zeros
from ..ternary.ternarize import ternary_layers

__all__ = ["AskedSize"]


class AskedSize:
    """Gives layers their zeros before the first iteration, and moves them when codes freeze.

    Args:
        model: with ternary layers.
        cfg: what the file is packed with, as :func:`ptq_det.pack_model` takes it.
        settings: those of ``cfg``.
        output_dir: folder for ``zeros_by_layer.yaml``; without one it is not written.

    Raises:
        InputError: the model became ternary without the key.
    """

    def __init__(self, model: nn.Module, cfg, settings: TernarySettings, output_dir: str | None):
        self._model, self._cfg, self._output_dir = model, cfg, output_dir
        self._layers = ternary_layers(model)
        self._target = settings.target_mib
        self._by_hand = bool(settings.sparsity_overrides)
        if self._target and any(x.sparsity is None for x in self._layers.values()):
            raise InputError(
                "the model became ternary without TERNARY.TARGET_MIB, so that it has no place for "
                "zeros of its own; ternarize it with the config that is trained with"
            )

    def begin(self, batches: Callable[[int], Iterable[list[dict]]]) -> None:
        """Move or choose the zeros of all layers; for weights that no training has changed.

        Args:
            batches: gives training pictures, at least as many batches as it is called with.

        Raises:
            InputError: the file cannot be that small.
        """
        if not self._target:
            return
        if self._by_hand:
            move_zeros(self._model, self._cfg, self._target)
        else:
            choose_zeros(self._model, self._cfg, batches(BATCHES), self._target)
        self._write()

    def resume(self, was_ternary: bool) -> None:
        """Check that a loaded checkpoint can be gone on from.

        Args:
            was_ternary: whether the model was ternary when it was loaded.

        Raises:
            InputError: it has zeros and the config asks for no size or for one that cannot be
                reached any more, or the reverse.
        """
        layers = self._layers.values()
        if not self._target:
            if any(x.ternary.left is not None and not x.is_ternary() for x in layers):
                raise InputError(
                    "the checkpoint is of a training with TERNARY.TARGET_MIB, and the zeros that "
                    "were chosen for it would be lost; go on with that key, or start anew, without "
                    "--resume"
                )
        elif any(x.is_chosen for x in layers):
            check_resumed(self._model, self._cfg, self._target)
        elif not was_ternary:
            raise InputError(
                "the model became ternary after the checkpoint was loaded, so that the zeros that "
                "were chosen for TERNARY.TARGET_MIB were not loaded; use ptq_det.TernaryTrainer or "
                "the ternary builders, or ternarize the model before it is loaded"
            )
        else:
            raise InputError(
                "the checkpoint is of a training without TERNARY.TARGET_MIB, so that no zeros were "
                "chosen for it; go on without that key, or start anew, without --resume"
            )

    def keep(self) -> None:
        """Before codes are final: what is done to weights after it leaves the file its size."""
        if self._target and any(x.is_chosen and not x.is_ternary() for x in self._layers.values()):
            keep_size(self._model, self._cfg, self._target, self._by_hand)
            self._write()

    def _write(self) -> None:
        if not self._output_dir or not comm.is_main_process():
            return
        path = Path(self._output_dir) / "zeros_by_layer.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        zeros = [[n, round(x.ternary.sparsity, 6)] for n, x in self._layers.items() if x.is_chosen]
        with replacing(path) as scratch:
            keys = {"TARGET_MIB": 0.0, "SPARSITY_OVERRIDES": zeros}
            scratch.write_text(yaml.safe_dump({"TERNARY": keys}, sort_keys=False))
        logging.getLogger("ptq_det").info("Zeros of each layer, as a config has them: %s", path)
