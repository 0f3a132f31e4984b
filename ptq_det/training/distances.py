"""How far a student's outputs are from a teacher's: the losses of distillation, pure functions."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["anchor_distances", "class_divergence", "map_distance", "mask_divergence"]


def map_distance(found: Tensor, target: Tensor) -> Tensor:
    """Squared distance ``()`` of two tensors of one shape over the squared norm of the second."""
    found, target = found.float(), target.float()
    norm = target.square().sum()
    return (found - target).square().sum() / torch.where(norm > 0, norm, 1)


def class_divergence(found: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence ``()`` of softmax probabilities, mean over the boxes.

    Hinton et al., arXiv 1503.02531, with temperature 1.

    Args:
        found: logits of the student ``(R, K)``.
        target: those of the teacher.
    """
    found, target = (F.log_softmax(x.float(), dim=1) for x in (found, target))
    loss = F.kl_div(found, target, reduction="sum", log_target=True)
    return loss / max(1, len(target))


def mask_divergence(found: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence ``()`` of sigmoid probabilities, mean over all of them.

    Args:
        found: logits of the student, of any shape, one at least.
        target: those of the teacher.
    """
    return _divergences(found.float(), target.float()).mean()


def anchor_distances(
    found: Iterable[tuple[Tensor, Tensor]], target: Iterable[tuple[Tensor, Tensor]], classes: int
) -> tuple[Tensor, Tensor]:
    """How far scores ``()`` and box deltas ``()`` of anchors are from a teacher's.

    Scores: the Kullback-Leibler divergence of sigmoid probabilities. Deltas: the sum of absolute
    differences. Both are means over the anchors of all levels, each of which counts by its
    probability of not being background: the larger one of teacher and student for the scores, the
    teacher's for the deltas. All other anchors are background to both, and outnumber these.

    Args:
        found: of the student, for each level logits ``(N, A · classes, H, W)`` and deltas
            ``(N, A · D, H, W)``.
        target: of the teacher.
        classes: logits of an anchor.
    """
    scores, deltas, weights = [], [], []
    for (logits, boxes), (to_logits, to_boxes) in zip(found, target, strict=True):
        logits, to_logits = (_by_anchor(x, x.shape[1] // classes) for x in (logits, to_logits))
        boxes, to_boxes = (_by_anchor(x, logits.shape[1]) for x in (boxes, to_boxes))
        probability = to_logits.sigmoid().amax(2)
        weight = torch.maximum(probability, logits.detach().sigmoid().amax(2))
        scores.append((weight * _divergences(logits, to_logits).sum(2)).sum())
        deltas.append((probability * (boxes - to_boxes).abs().sum(2)).sum())
        weights.append(weight.sum())
    count = torch.stack(weights).sum().clamp(min=1)
    return torch.stack(scores).sum() / count, torch.stack(deltas).sum() / count


def _divergences(logits: Tensor, target: Tensor) -> Tensor:
    """Kullback-Leibler divergence of each probability: cross entropy less the target's entropy."""
    probability = target.sigmoid()
    cross = F.binary_cross_entropy_with_logits(logits, probability, reduction="none")
    return cross - F.binary_cross_entropy_with_logits(target, probability, reduction="none")


def _by_anchor(x: Tensor, anchors: int) -> Tensor:
    """``(N, A · D, H, W)`` → ``(N, A, D, H, W)`` in float32."""
    return x.float().reshape(len(x), anchors, -1, *x.shape[2:])
