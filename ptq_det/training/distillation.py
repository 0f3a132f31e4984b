"""Distillation: the float model that a fine-tuning starts from teaches the ternary one."""

import torch
import torch.nn.functional as F
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import Tensor, nn

from ..errors import InputError
from ..modeling.meta_arch import build_float_model
from ..ternary.ternarize import restore_classes, unwrap

__all__ = ["Distillation", "DistillationHook", "build_teacher"]


def build_teacher(cfg: CfgNode) -> nn.Module:
    """The float model of ``MODEL.WEIGHTS``, without gradients.

    Its batch norms follow the batch, as those of the student that is trained on it do: features
    that are normalized in another way are no target. Their own statistics stay as they are.

    Raises:
        InputError: ``MODEL.WEIGHTS`` is empty.
    """
    if not cfg.MODEL.WEIGHTS:
        raise InputError(
            "TERNARY.DISTILLATION needs a float model in MODEL.WEIGHTS to learn from, and it is "
            "empty; give one, or set TERNARY.DISTILLATION 0.0"
        )
    teacher = build_float_model(cfg)
    restore_classes(teacher)
    DetectionCheckpointer(teacher).load(cfg.MODEL.WEIGHTS)
    teacher.eval().requires_grad_(False)
    for module in teacher.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
            module.momentum = 0.0
    return teacher


class Distillation:
    """Adds losses to a model's own in training: how far it is from a teacher on the same pictures.

    - ``loss_distill_features``: squared distance of the backbone's feature maps over the squared
      norm of the teacher's, averaged over the levels.
    - ``loss_distill_boxes``: Kullback-Leibler divergence of the class probabilities, on the boxes
      that the student samples, each with its own features (Hinton et al., arXiv 1503.02531,
      temperature 1). Only of heads with one box predictor.
    - ``loss_distill_masks``: cross entropy to the teacher's mask probabilities on the student's
      boxes, less the teacher's own entropy.

    Args:
        student: the model, changed by hooks until :meth:`remove`.
        teacher: float model of the same architecture.
        weight: factor of all three.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, weight: float):
        self._teacher, self._weight = teacher, weight
        self._losses: dict[str, Tensor] = {}
        self._features: dict[str, Tensor] = {}
        self._boxes = {}
        self._handles = [
            student.backbone.register_forward_hook(self._compare_features),
            student.register_forward_hook(self._add_losses),
        ]
        heads = getattr(student, "roi_heads", None)
        if isinstance(getattr(heads, "box_predictor", None), nn.Module) and hasattr(
            heads, "box_pooler"
        ):
            self._handles += [
                heads.box_pooler.register_forward_hook(self._remember_boxes("box")),
                heads.box_predictor.register_forward_hook(self._compare_classes),
            ]
        if isinstance(getattr(heads, "mask_head", None), nn.Sequential) and hasattr(
            heads, "mask_pooler"
        ):
            self._handles += [
                heads.mask_pooler.register_forward_hook(self._remember_boxes("mask")),
                heads.mask_head.predictor.register_forward_hook(self._compare_masks),
            ]

    def remove(self) -> None:
        """Take the hooks off the student."""
        for handle in self._handles:
            handle.remove()

    def _compare_features(self, module, args, output):
        if not module.training:
            return
        with torch.no_grad():
            self._features = self._teacher.backbone(*args)
        distances = [
            (output[name].float() - target.float()).square().sum() / target.float().square().sum()
            for name, target in self._features.items()
        ]
        self._losses["loss_distill_features"] = torch.stack(distances).mean()

    def _remember_boxes(self, kind):
        def remember(module, args, output):
            self._boxes[kind] = args[1]

        return remember

    def _pooled(self, kind: str) -> Tensor:
        heads = self._teacher.roi_heads
        names = getattr(heads, f"{kind}_in_features")
        pooler = getattr(heads, f"{kind}_pooler")
        return pooler([self._features[name] for name in names], self._boxes[kind])

    def _compare_classes(self, module, args, output):
        if not module.training:
            return
        heads = self._teacher.roi_heads
        with torch.no_grad():
            scores, _ = heads.box_predictor(heads.box_head(self._pooled("box")))
        found = F.log_softmax(output[0].float(), dim=1)
        target = F.log_softmax(scores.float(), dim=1)
        loss = F.kl_div(found, target, reduction="sum", log_target=True) / max(1, len(target))
        self._losses["loss_distill_boxes"] = loss

    def _compare_masks(self, module, args, output):
        if not module.training:
            return
        if len(output) == 0:
            self._losses["loss_distill_masks"] = output.sum() * 0
            return
        with torch.no_grad():
            logits = self._teacher.roi_heads.mask_head.layers(self._pooled("mask")).float()
            target = logits.sigmoid()
            entropy = F.binary_cross_entropy_with_logits(logits, target)
        loss = F.binary_cross_entropy_with_logits(output.float(), target) - entropy
        self._losses["loss_distill_masks"] = loss

    def _add_losses(self, module, args, output):
        if not module.training:
            return None
        losses = {name: self._weight * loss for name, loss in self._losses.items()}
        self._losses, self._features, self._boxes = {}, {}, {}
        return {**output, **losses}


class DistillationHook(HookBase):
    """Distils ``MODEL.WEIGHTS`` into the model that is trained, by ``TERNARY.DISTILLATION``."""

    def __init__(self, cfg: CfgNode):
        self._cfg = cfg
        self._distillation: Distillation | None = None

    def before_train(self):
        teacher = build_teacher(self._cfg)
        weight = self._cfg.TERNARY.DISTILLATION
        self._distillation = Distillation(unwrap(self.trainer.model), teacher, weight)

    def after_train(self):
        if self._distillation is not None:  # else what came before the training has failed
            self._distillation.remove()
