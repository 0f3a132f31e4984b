"""Detectron2's default trainer with ternary weights."""

import logging
import os
import weakref

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer, create_ddp_model
from detectron2.engine.hooks import EvalHook, PeriodicCheckpointer, PreciseBN
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from detectron2.utils import comm

from ..data.loader import build_resumable_train_loader
from ..engines import DEFAULT_ENGINE
from ..errors import InputError
from ..files import MIB
from ..inference.evaluation import load_for_evaluation
from ..inference.evaluators import build_evaluator
from ..modeling.meta_arch import build_float_model
from ..packing.packed_model import PackedModel
from ..settings import TernarySettings
from ..sizing.target import check_size
from ..ternary.ternarize import check_trained, ternarize, unwrap
from .data_checks import check_classes
from .distillation import DistillationHook
from .hooks import PTQHook
from .mixed_precision import use_bfloat16, use_channels_last
from .preflight import check_augmentation
from .resuming import KIND, check_resume, kind_of
from .rounding import RoundingHook
from .setting_checks import building
from .shared_file import from_main_process
from .sync_norms import with_shared_norms

__all__ = ["TernaryTrainer"]

_SEED_STRIDE = 1_009  # between the seeds of two iterations; more than any number of ranks


class TernaryTrainer(DefaultTrainer):
    """:class:`DefaultTrainer` that builds, fine-tunes and evaluates a ternary model.

    With ``TERNARY.ENABLED`` the model is ternarized and a :class:`PTQHook` runs before weights
    are saved or evaluated. Without it this is a float trainer, for the baseline. Runs on CPU in
    several processes (gloo) too; on several GPUs every norm ``BN`` becomes ``SyncBN``. With
    ``SEED >= 0`` a stopped run that is resumed ends with the weights of one that was not stopped.

    Args:
        cfg: the full config, with the node ``TERNARY``.

    Raises:
        InputError: a value of the config, or what it names, cannot be used.
    """

    def __init__(self, cfg):
        super(DefaultTrainer, self).__init__()
        # The steps are those of DefaultTrainer.__init__, which cannot wrap a model on the CPU for
        # several processes and does not let its checkpointer be chosen.
        with building("the batch of this number of processes"):
            cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        cfg = with_shared_norms(cfg)
        _refuse_engine(cfg)
        check_augmentation(cfg)
        with building("the model"):
            model = self.build_model(cfg)
        with building("the optimizer"):
            optimizer = self.build_optimizer(cfg, model)
        with building("the loader of DATASETS.TRAIN"):
            data_loader = self.build_train_loader(cfg)
        check_classes(cfg)

        on_cpu = next(model.parameters()).device.type == "cpu"
        if on_cpu:
            use_channels_last(model)
        if on_cpu and cfg.SOLVER.AMP.ENABLED:
            use_bfloat16(model)
        model = create_ddp_model(
            model, broadcast_buffers=False, **({"device_ids": None} if on_cpu else {})
        )
        trainer_class = AMPTrainer if cfg.SOLVER.AMP.ENABLED and not on_cpu else SimpleTrainer
        self._trainer = trainer_class(model, data_loader, optimizer)
        with building("the schedule of learning rates"):
            self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = DetectionCheckpointer(
            model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        with building("the hooks of the training"):
            self.register_hooks(self.build_hooks())

    @classmethod
    def build_model(cls, cfg):
        """Build the model of the config, ternary where ``TERNARY.ENABLED`` says so."""
        model = build_float_model(cfg)
        if cfg.TERNARY.ENABLED:
            logging.getLogger(__name__).info("%s", ternarize(model, cfg))
        return model

    @classmethod
    def build_optimizer(cls, cfg, model):
        """Build the optimizer that ``TERNARY.OPTIMIZER`` names, with Detectron2's groups."""
        if TernarySettings.from_cfg(cfg).optimizer == "SGD":
            return super().build_optimizer(cfg, model)
        groups = get_default_optimizer_params(
            model,
            base_lr=cfg.SOLVER.BASE_LR,
            weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
            bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
            weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
        )
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.AdamW)
        options = {"lr": cfg.SOLVER.BASE_LR, "weight_decay": cfg.SOLVER.WEIGHT_DECAY}
        # A fused step unscales the gradients of mixed precision itself, after they were clipped.
        return optimizer(groups, **options, fused=not cfg.SOLVER.CLIP_GRADIENTS.ENABLED)

    def build_hooks(self):
        """Detectron2's hooks, with :class:`PTQHook` before checkpointing and evaluation.

        The last evaluation is that of the packed model, ``model_final.safetensors``.
        """
        hooks = super().build_hooks()
        if TernarySettings.is_ternary_config(self.cfg):
            after = (PreciseBN, PeriodicCheckpointer, EvalHook)
            place = next(i for i, hook in enumerate(hooks) if isinstance(hook, after))
            hooks.insert(place, PTQHook(self.cfg))
            if self.cfg.TERNARY.DISTILLATION > 0:  # before what takes minutes
                hooks.insert(place, DistillationHook(self.cfg))
            place = next(i for i, hook in enumerate(hooks) if isinstance(hook, EvalHook))
            hooks[place] = EvalHook(self.cfg.TEST.EVAL_PERIOD, self._evaluate)
            saves = (PeriodicCheckpointer, EvalHook)  # behind PreciseBN, which changes the norms
            place = next(i for i, hook in enumerate(hooks) if isinstance(hook, saves))
            hooks.insert(place, RoundingHook(self.cfg))
        return hooks

    def _evaluate(self):
        model = self.model
        if self.iter + 1 >= self.max_iter:
            path = os.path.join(self.cfg.OUTPUT_DIR, "model_final.safetensors")
            logger = logging.getLogger(__name__)
            if comm.is_main_process():
                packed = PackedModel.of(model, self.cfg)
                packed.write(path)
                before, after = packed.float_bytes / MIB, os.path.getsize(path) / MIB
                logger.info("Packed model: %s, %.2f MiB -> %.2f MiB", path, before, after)
                if self.cfg.TERNARY.TARGET_MIB:
                    check_size(path, self.cfg.TERNARY.TARGET_MIB)
            logger.info("Evaluating the packed model %s", path)
            with from_main_process(path) as here:
                model = load_for_evaluation(self.cfg, here, DEFAULT_ENGINE)
        self._last_eval_results = self.test(self.cfg, model)
        return self._last_eval_results

    @classmethod
    def build_train_loader(cls, cfg):
        """Build a loader that can start at any iteration."""
        return build_resumable_train_loader(cfg)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name, output_folder=None):
        """Build the evaluator that the data set's metadata asks for."""
        return build_evaluator(cfg, dataset_name, output_folder)

    def resume_or_load(self, resume=True):
        """Load the last checkpoint (``resume``) or ``MODEL.WEIGHTS``, as Detectron2 does.

        Raises:
            UntrainedLayersError: a ternary layer was not loaded and ``REQUIRE_TRAINED`` is set.
            InputError: the last checkpoint is lost, cut, or of another run.
        """
        if resume:
            check_resume(self.checkpointer, unwrap(self.model), self.optimizer, self.cfg)
        super().resume_or_load(resume=resume)
        self.data_loader.batch_sampler.start = self.start_iter
        check_trained(self.model, self.cfg)

    def state_dict(self):
        """Detectron2's, and what is trained, so that another training does not go on from it."""
        return {**super().state_dict(), KIND: kind_of(self.cfg)}

    def run_step(self):
        """Run one iteration, with random numbers that depend on seed and iteration alone."""
        if self.cfg.SEED >= 0:
            torch.manual_seed(self.cfg.SEED + self.iter * _SEED_STRIDE + comm.get_rank())
        super().run_step()


def _refuse_engine(cfg: CfgNode) -> None:
    engine = TernarySettings.from_cfg(cfg).engine
    if engine not in ("", DEFAULT_ENGINE):
        raise InputError(
            f"TERNARY.ENGINE is {engine!r}, but a training ends with an evaluation in float: its "
            "file is not calibrated yet. Leave the key out, then calibrate the file "
            "(tools/pack.py --calibrate) and evaluate it (--eval-only) with it"
        )
