"""Distillation: the float model that a fine-tuning starts from teaches the ternary one."""

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.modeling import RetinaNet
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes
from torch import Tensor, nn

from ..errors import InputError
from ..modeling.meta_arch import build_float_model
from ..packing.filled import load_filled
from ..ternary.ternarize import restore_classes, unwrap
from .distances import anchor_distances, class_divergence, map_distance, mask_divergence
from .preflight import check_teacher

__all__ = ["Distillation", "DistillationHook", "build_teacher"]


def build_teacher(cfg: CfgNode) -> nn.Module:
    """The float model of ``MODEL.WEIGHTS``, without gradients.

    With ``TERNARY.REQUIRE_TRAINED`` all of it has to be there: what is random teaches nothing.

    Its batch norms follow the batch, as those of the student that is trained on it do: features
    that are normalized in another way are no target. Their own statistics stay as they are.

    Raises:
        InputError: ``MODEL.WEIGHTS`` is empty, lost, or of another model.
    """
    check_teacher(cfg)
    with torch.random.fork_rng(devices=[]):  # the training's numbers do not depend on a teacher
        teacher = build_float_model(cfg)
    restore_classes(teacher)
    try:
        load_filled(teacher, cfg)
    except InputError as error:
        raise InputError(f"{error} Or learn from no teacher: TERNARY.DISTILLATION 0.0.") from error
    teacher.eval().requires_grad_(False)
    for module in teacher.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
            module.momentum = 0.0
    return teacher


class Distillation:
    """Adds losses to a model's own in training: how far it is from a teacher on the same pictures.

    - ``loss_distill_features``: distance of the backbone's feature maps, averaged over the levels.
    - ``loss_distill_anchors`` and ``loss_distill_anchor_deltas``: of the scores and box deltas of a
      region proposal network, or of RetinaNet, at each anchor.
    - ``loss_distill_pooled``: distance of the features that are pooled for the boxes that the
      student samples.
    - ``loss_distill_boxes``: divergence of the class probabilities on those boxes, each with its
      own features. Like the one before, only of heads with one box predictor.
    - ``loss_distill_masks``: divergence of the mask probabilities on the student's boxes.

    :mod:`.distances` has the formulas.

    Args:
        student: the model, changed by hooks until :meth:`remove`.
        teacher: float model of the same architecture.
        weight: factor of all of them.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, weight: float):
        self._teacher, self._weight = teacher, weight
        self._losses: dict[str, Tensor] = {}
        self._features: dict[str, Tensor] = {}
        self._pooled_boxes: Tensor | None = None
        self._mask_boxes: list[Boxes] | None = None
        self._handles = [
            student.backbone.register_forward_hook(self._compare_features),
            student.register_forward_hook(self._add_losses),
        ]
        if isinstance(student, RetinaNet):
            names, classes = student.head_in_features, student.num_classes
            self._compare_anchors(student.head, teacher.head, names, classes)
        proposals = getattr(student, "proposal_generator", None)
        if isinstance(proposals, RPN):
            head = teacher.proposal_generator.rpn_head
            self._compare_anchors(proposals.rpn_head, head, proposals.in_features, 1)
        heads = getattr(student, "roi_heads", None)
        predictor = getattr(heads, "box_predictor", None)
        is_one = isinstance(predictor, nn.Module) and not isinstance(predictor, nn.ModuleList)
        if is_one and hasattr(heads, "box_pooler"):
            self._handles += [
                heads.box_pooler.register_forward_hook(self._compare_pooled),
                heads.box_predictor.register_forward_hook(self._compare_classes),
            ]
        if isinstance(getattr(heads, "mask_head", None), nn.Sequential) and hasattr(
            heads, "mask_pooler"
        ):
            self._handles += [
                heads.mask_pooler.register_forward_hook(self._remember_boxes),
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
            features = self._teacher.backbone(*args)
        # Not bfloat16, to whose eight bits poolers would round the boxes.
        self._features = {name: x.float() for name, x in features.items()}
        distances = [map_distance(output[name], x) for name, x in self._features.items()]
        self._losses["loss_distill_features"] = torch.stack(distances).mean()

    def _compare_anchors(
        self, head: nn.Module, teacher: nn.Module, names: list[str], classes: int
    ) -> None:
        def compare(module, args, output):
            if not module.training:
                return
            with torch.no_grad():
                target = teacher([self._features[name] for name in names])
            levels = (zip(*outputs, strict=True) for outputs in (output, target))
            scores, deltas = anchor_distances(*levels, classes)
            self._losses["loss_distill_anchors"] = scores
            self._losses["loss_distill_anchor_deltas"] = deltas

        self._handles.append(head.register_forward_hook(compare))

    def _compare_pooled(self, module, args, output):
        if not module.training:
            return
        with torch.no_grad():
            self._pooled_boxes = self._pooled("box", args[1])
        self._losses["loss_distill_pooled"] = map_distance(output, self._pooled_boxes)

    def _compare_classes(self, module, args, output):
        if not module.training:
            return
        heads = self._teacher.roi_heads
        with torch.no_grad():
            scores, _ = heads.box_predictor(heads.box_head(self._pooled_boxes))
        self._losses["loss_distill_boxes"] = class_divergence(output[0], scores)

    def _remember_boxes(self, module, args, output):
        self._mask_boxes = args[1]

    def _compare_masks(self, module, args, output):
        if not module.training:
            return
        if len(output) == 0:
            self._losses["loss_distill_masks"] = output.sum() * 0
            return
        with torch.no_grad():
            features = self._pooled("mask", self._mask_boxes)
            logits = self._teacher.roi_heads.mask_head.layers(features)
        self._losses["loss_distill_masks"] = mask_divergence(output, logits)

    def _pooled(self, kind: str, boxes: list[Boxes]) -> Tensor:
        heads = self._teacher.roi_heads
        names = getattr(heads, f"{kind}_in_features")
        pooler = getattr(heads, f"{kind}_pooler")
        return pooler([self._features[name] for name in names], boxes)

    def _add_losses(self, module, args, output):
        if not module.training:
            return None
        losses = {name: self._weight * loss for name, loss in self._losses.items()}
        self._losses, self._features = {}, {}
        self._pooled_boxes = self._mask_boxes = None
        return {**output, **losses}


class DistillationHook(HookBase):
    """Distils ``MODEL.WEIGHTS`` into the model that is trained, by ``TERNARY.DISTILLATION``.

    The teacher is loaded before the training, so that one that cannot be is told before any work;
    the student is changed at the first step, when all else that comes before is done.
    """

    def __init__(self, cfg: CfgNode):
        self._cfg = cfg
        self._teacher: nn.Module | None = None
        self._distillation: Distillation | None = None

    def before_train(self):
        self._teacher = build_teacher(self._cfg)

    def before_step(self):
        if self._distillation is None:
            student, weight = unwrap(self.trainer.model), self._cfg.TERNARY.DISTILLATION
            self._distillation = Distillation(student, self._teacher, weight)

    def after_train(self):
        if self._distillation is not None:  # else what came before the training has failed
            self._distillation.remove()
