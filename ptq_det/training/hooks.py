"""The hook that takes the weights from float to ternary during fine-tuning."""

import itertools
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig

from ..compensation.whole_model import compensate_model
from ..errors import InputError
from ..files import replacing
from ..lazy import settings_in
from ..settings import TernarySettings
from ..ternary.activations import PACT
from ..ternary.norms import find_norms, fold_norms
from ..ternary.schedule import Stage, pruning_ratio, stage_at
from ..ternary.statistics import TernaryStatistics
from ..ternary.ternarize import check_trained, ternarize, ternary_layers, unwrap
from .asked_size import AskedSize
from .distillation import DistillationHook

__all__ = ["PTQHook"]


class PTQHook(HookBase):
    """Drives the stages prune → ternary → frozen codes, and logs how ternary the model is.

    Works with any trainer of Detectron2. All it does to weights happens before a step and is a
    function of the iteration and the weights (and, with ``TERNARY.COMPENSATION`` and before the
    first iteration only, of training pictures), so it may be registered anywhere, needs no state in
    a checkpoint, and processes agree without a broadcast; but for zeros that were chosen or moved
    for ``TERNARY.TARGET_MIB``, which the first process gives to all, and layers keep in the
    checkpoint. ``TernaryTrainer`` places it before the hooks that save and evaluate.

    Scalars in the event storage: ``ternary/sparsity``, ``ternary/bits_per_weight`` (entropy),
    ``ternary/discrepancy`` (‖w − ŵ‖ / ‖w‖) and ``ternary/sign_flips`` (fraction of codes that
    changed since they were last logged). The last measurement is written to
    ``OUTPUT_DIR/ternary_statistics.json`` too, by layer.

    Args:
        cfg: full config, a whole lazy one too, or settings as
            :meth:`ptq_det.settings.TernarySettings.of` takes them. A model without ternary layers
            is ternarized before training. What is given is packed to measure the size that
            ``TERNARY.TARGET_MIB`` asks for, so give what the file is packed with.
        period: iterations between two measurements, as often as Detectron2 writes its metrics.
        output_dir: folder for ``ternary_statistics.json``, by default the config's ``OUTPUT_DIR``;
            without one it is not written.
    """

    def __init__(
        self,
        cfg: CfgNode | DictConfig | TernarySettings | Mapping[str, Any],
        period: int = 20,
        output_dir: str | None = None,
    ):
        self.cfg = cfg
        self.settings = settings_in(cfg)
        self.period = period
        self._output_dir = output_dir
        if output_dir is None and isinstance(cfg, CfgNode):
            self._output_dir = cfg.OUTPUT_DIR
        self._codes = None
        self._stage = None
        self._logger = logging.getLogger("ptq_det")
        if not self._logger.isEnabledFor(logging.INFO):  # as DefaultTrainer does for its own
            setup_logger(name="ptq_det")

    def before_train(self):
        was_ternary = bool(ternary_layers(self.trainer.model))
        if not was_ternary:
            self._ternarize_loaded_model()
        is_full = isinstance(self.cfg, CfgNode)
        check_trained(self.trainer.model, self.cfg if is_full else self.settings)
        fold_norms(unwrap(self.trainer.model))
        self._layers = ternary_layers(self.trainer.model)
        self._refuse_unoptimized()
        self._warn_of_idle_keys()
        self._warn_of_frozen_norms()
        self._size = AskedSize(self.trainer.model, self.cfg, self.settings, self._output_dir)
        if self.trainer.start_iter > 0:
            self._size.resume(was_ternary)
            return
        self._size.begin(self._batches)
        if self.settings.compensates:
            # A trial of a few iterations is not to wait for more batches than it trains on.
            count = min(self.settings.compensation, self.trainer.max_iter)
            compensate_model(self.trainer.model, self._batches(count), count)

    def _batches(self, count: int) -> Iterable[list[dict]]:
        """What the trainer trains on, from its start; what it reads itself is left to it.

        The first ``count`` batches of a loader that can be read only once are put back before it.
        """
        build = getattr(self.trainer, "build_train_loader", None)
        if build is not None and isinstance(self.cfg, CfgNode):
            return build(self.cfg)
        loader = getattr(self.trainer, "data_loader", None)
        if loader is None:
            raise InputError(
                f"{self.trainer.__class__.__name__} has no data_loader, whose pictures "
                "compensation looks at and the choice of zeros for a size; give it that attribute, "
                "or set TERNARY.COMPENSATION 0 and TERNARY.TARGET_MIB 0.0"
            )
        if iter(loader) is not loader:
            return loader
        taken = list(itertools.islice(loader, count))
        self.trainer.data_loader = itertools.chain(taken, loader)
        return taken

    def before_step(self):
        settings, iteration, max_iter = self.settings, self.trainer.iter, self.trainer.max_iter
        stage = stage_at(iteration, max_iter, settings.prune_end, settings.freeze_start)
        ratio = pruning_ratio(iteration, max_iter, settings.prune_end)
        begins = stage is not self._stage
        moves_zeros = begins if stage is Stage.FROZEN else iteration + 1 == max_iter
        if moves_zeros:
            self._set(Stage.TERNARY, ratio)  # codes are those of latent weights until they are kept
            self._size.keep()
        self._set(stage, ratio)
        if begins:
            self._enter(stage)
        if self._measures():
            for pact in self._pacts().values():
                pact.watch()

    def _set(self, stage: Stage, ratio: float) -> None:
        loss_scale = self._loss_scale()
        for layer in self._layers.values():
            layer.ternary.stage = stage
            layer.ternary.ratio = ratio
            layer.ternary.decay.loss_scale = loss_scale
            layer.forget()

    def after_step(self):
        if not self._measures():
            return
        self._refuse_useless_activations()
        if comm.is_main_process():
            measured = self._log()
            if self._output_dir and self.trainer.iter + 1 == self.trainer.max_iter:
                self._write(measured)

    def _measures(self) -> bool:
        next_iter = self.trainer.iter + 1
        return next_iter % self.period == 0 or next_iter == self.trainer.max_iter

    def _pacts(self) -> dict[str, PACT]:
        return {n: layer.pact for n, layer in self._layers.items() if hasattr(layer, "pact")}

    def _refuse_useless_activations(self) -> None:
        troubles = {name: pact.trouble() for name, pact in self._pacts().items()}
        found = [f"{name}: {what}" for name, what in troubles.items() if what]
        if found:
            raise InputError(
                f"activations of {len(found)} layers are useless at iteration {self.trainer.iter} "
                f"({found[0]}). Start again with a lower SOLVER.BASE_LR, more "
                "TERNARY.ACTIVATION_BITS or SOLVER.CLIP_GRADIENTS.ENABLED True"
            )

    def _enter(self, stage: Stage) -> None:
        self._stage = stage
        self._logger.info("Iteration %d: stage %s", self.trainer.iter, stage.value)
        if stage is not Stage.FROZEN:
            return
        for layer in self._layers.values():
            if layer.snap():
                # The momentum would move weights apart that now share a scale.
                self.trainer.optimizer.state.pop(layer.weight, None)

    def _log(self) -> TernaryStatistics:
        measured = TernaryStatistics.of(self._layers, self._codes)
        self._codes = measured.codes
        scalars = {
            name: getattr(measured.all, name)
            for name in ("sparsity", "bits_per_weight", "discrepancy", "sign_flips")
        }
        for name, value in scalars.items():
            self.trainer.storage.put_scalar(f"ternary/{name}", value, smoothing_hint=False)
        self._logger.info(
            "Iteration %d (%s): %s",
            self.trainer.iter,
            self._stage.value,
            ", ".join(f"{name} {value:.4f}" for name, value in scalars.items()),
        )
        return measured

    def _write(self, measured: TernaryStatistics) -> None:
        path = Path(self._output_dir) / "ternary_statistics.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as scratch:
            scratch.write_text(measured.to_json() + "\n")
        self._logger.info("Figures of each ternary layer: %s", path)

    def _loss_scale(self) -> float:
        """What mixed precision multiplies the loss by, 1 without it or where nothing depends on it:
        to read it waits for the GPU."""
        if not self.settings.decay:
            return 1.0
        inner = getattr(self.trainer, "_trainer", self.trainer)
        scaler = getattr(inner, "grad_scaler", None)
        return 1.0 if scaler is None else scaler.get_scale()

    def _ternarize_loaded_model(self) -> None:
        model = self.trainer.model
        record = ternarize(unwrap(model), self.settings)
        self._logger.info("%s", record)
        for layer in ternary_layers(model).values():
            layer.ternary.loaded = True  # weights came before; which ones, nobody can tell now

    def _warn_of_frozen_norms(self) -> None:
        modules = dict(unwrap(self.trainer.model).named_modules())
        norms = find_norms(unwrap(self.trainer.model))
        frozen = [
            name
            for name, layer in self._layers.items()
            if isinstance(modules.get(norms.get(name)), FrozenBatchNorm2d)
            and not layer.ternary.quantizer.folds_norms
        ]
        if frozen:
            self._logger.warning(
                "%d ternary layers (%s, …) have frozen batch norms, whose statistics are those of "
                "the float weights. That costs much accuracy: set MODEL.RESNETS.NORM BN, or SyncBN "
                "on several GPUs.",
                len(frozen),
                frozen[0],
            )

    def _warn_of_idle_keys(self) -> None:
        """Say what ``TERNARY`` asks for that this trainer does not do."""
        idle = []
        if self.settings.optimizer == "AdamW" and not isinstance(
            self.trainer.optimizer, torch.optim.AdamW
        ):
            idle.append(f"OPTIMIZER AdamW (it has {type(self.trainer.optimizer).__name__})")
        hooks = getattr(self.trainer, "_hooks", [])
        if self.settings.distillation and not any(isinstance(x, DistillationHook) for x in hooks):
            idle.append("DISTILLATION")
        if idle:
            self._logger.warning(
                "This trainer does not do what TERNARY.%s asks for; ptq_det.TernaryTrainer does.",
                " and TERNARY.".join(idle),
            )

    def _refuse_unoptimized(self) -> None:
        groups = self.trainer.optimizer.param_groups
        optimized = {id(p) for group in groups for p in group["params"]}
        for name, layer in self._layers.items():
            clip = layer.pact.clip if hasattr(layer, "pact") else None
            learned = {"scale": layer.scale, "clip of the activations": clip}
            for what, parameter in learned.items():
                if parameter is None or id(parameter) in optimized:
                    continue
                raise InputError(
                    f"the learned {what} of {name} is not in the optimizer, because the model "
                    "became ternary after the optimizer was built. Use TernaryTrainer or the "
                    "ternary builders, or settings without it."
                )
