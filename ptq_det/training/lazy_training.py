"""Trains and evaluates what a lazy config says, as Detectron2's lazyconfig_train_net.py does, with
the stages of :class:`PTQHook`, the last rounding, packing and an evaluation of the packed file."""

import logging
import os

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import instantiate
from detectron2.engine import AMPTrainer, SimpleTrainer, create_ddp_model, default_writers, hooks
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from ..engines import DEFAULT_ENGINE
from ..errors import InputError
from ..files import MIB
from ..inference.evaluation import packed_weights
from ..inference.loading import load_packed
from ..lazy import model_node, settings_in
from ..packing.filled import load_filled
from ..packing.packed_model import PackedModel
from ..settings import TernarySettings
from ..sizing.target import check_size
from ..ternary.norms import fold_norms
from ..ternary.ternarize import check_trained, ternarize, ternary_layers
from .hooks import PTQHook
from .mixed_precision import use_bfloat16
from .resuming import last_checkpoint
from .rounding import RoundingHook
from .setting_checks import building
from .shared_file import from_main_process
from .sync_norms import with_shared_norms

__all__ = ["evaluate", "train"]

_logger = logging.getLogger("ptq_det")


def train(cfg: DictConfig, resume: bool) -> dict:
    """Train the model of a lazy config; a ternary one ends as ``model_final.safetensors``.

    Args:
        cfg: whole config, as ``check_lazy_config`` passes it.
        resume: go on from the last checkpoint of ``train.output_dir``, if there is one.

    Returns:
        Results of the last evaluation.

    Raises:
        InputError: something of the config cannot be built, or the weights cannot be used.
    """
    settings, folder = settings_in(cfg), cfg.train.output_dir
    model = _build(with_shared_norms(cfg), settings)
    is_ternary = bool(ternary_layers(model))
    cfg.optimizer.params.model = model
    with building("the optimizer"):
        optimizer = instantiate(cfg.optimizer)
    with building("the loader dataloader.train"):
        loader = instantiate(cfg.dataloader.train)
    on_cpu = str(cfg.train.device) == "cpu"
    if on_cpu and cfg.train.amp.enabled:
        with building("mixed precision on a CPU"):
            use_bfloat16(model)
    model = create_ddp_model(
        model, **cfg.train.get("ddp", {}), **({"device_ids": None} if on_cpu else {})
    )
    trainer = (AMPTrainer if cfg.train.amp.enabled and not on_cpu else SimpleTrainer)(
        model, loader, optimizer
    )
    checkpointer = DetectionCheckpointer(model, folder, trainer=trainer)
    results = {}

    def test() -> dict:
        at_end = trainer.iter + 1 >= cfg.train.max_iter
        results.clear()
        results.update(_test_packed(cfg, model) if at_end and is_ternary else _test(cfg, model))
        return results

    with building("the schedule of learning rates"):
        scheduler = hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier))
    is_main = comm.is_main_process()
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            scheduler,
            *([PTQHook(cfg, output_dir=folder), RoundingHook(settings)] if is_ternary else []),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer) if is_main else None,
            hooks.EvalHook(cfg.train.eval_period, test),
            hooks.PeriodicWriter(
                default_writers(folder, cfg.train.max_iter), cfg.train.get("log_period", 20)
            )
            if is_main
            else None,
        ]
    )
    start = _load(checkpointer, trainer, cfg, resume)
    check_trained(model, settings)
    trainer.train(start, cfg.train.max_iter)
    return results


def evaluate(cfg: DictConfig, resume: bool) -> dict:
    """Evaluate ``train.init_checkpoint``, a checkpoint or a packed file, on ``dataloader.test``.

    Args:
        cfg: as :func:`train` has it; ``ternary.engine`` names what runs a packed file.
        resume: take the last checkpoint of ``train.output_dir`` in its place.

    Raises:
        InputError: the weights cannot be used.
    """
    settings = settings_in(cfg)
    weights = last_checkpoint(cfg.train.output_dir) if resume else None
    weights = weights or cfg.train.get("init_checkpoint", "")
    packed = packed_weights(settings, weights)
    if packed is not None:
        model = load_packed(packed, cfg.train.device, settings.engine or None, model=cfg.model)
    else:
        model = _build(cfg, settings).eval()
        load_filled(model, settings, weights)
        fold_norms(model)
    return _test(cfg, model)


def _build(cfg: DictConfig, settings: TernarySettings) -> nn.Module:
    with building("the model"):  # in float: what makes it ternary may stand beside it too
        model = instantiate(model_node(cfg))
    model.to(cfg.train.device)
    if settings.enabled and not ternary_layers(model):
        _logger.info("%s", ternarize(model, settings))
    return model


def _load(
    checkpointer: DetectionCheckpointer, trainer: SimpleTrainer, cfg: DictConfig, resume: bool
) -> int:
    """Load the last checkpoint or ``train.init_checkpoint``; the iteration to start with."""
    last = last_checkpoint(cfg.train.output_dir) if resume else None
    if last is None:
        checkpointer.load(cfg.train.get("init_checkpoint", ""), checkpointables=[])
        return 0
    cure = "start anew, without --resume and with another train.output_dir"
    try:
        checkpointer.load(last)
    except InputError:
        raise
    except Exception as error:  # of another optimizer, or cut
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise InputError(f"{last} cannot be resumed from ({reason}); {cure}") from error
    start = trainer.iter + 1
    if start > cfg.train.max_iter:
        raise InputError(
            f"{last} has had {start} iterations, and train.max_iter is {cfg.train.max_iter}: raise "
            f"it to go on, or {cure}"
        )
    return start


def _test_packed(cfg: DictConfig, model: nn.Module) -> dict:
    """Pack a model and evaluate the file."""
    path = os.path.join(cfg.train.output_dir, "model_final.safetensors")
    if comm.is_main_process():
        packed = PackedModel.of(model, cfg)
        packed.write(path)
        before, after = packed.float_bytes / MIB, os.path.getsize(path) / MIB
        _logger.info("Packed model: %s, %.2f MiB -> %.2f MiB", path, before, after)
        target = settings_in(cfg).target_mib
        if target:
            check_size(path, target)
    with from_main_process(path) as here:
        return _test(cfg, load_packed(here, cfg.train.device, DEFAULT_ENGINE, model=cfg.model))


def _test(cfg: DictConfig, model: nn.Module) -> dict:
    if "evaluator" not in cfg.dataloader:
        return {}
    with building("dataloader.test or dataloader.evaluator"):
        loader, evaluator = instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    results = inference_on_dataset(model, loader, evaluator)
    if comm.is_main_process():
        print_csv_format(results)
    return results
