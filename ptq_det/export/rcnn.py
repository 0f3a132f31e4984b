"""R-CNN's proposals and heads as operators of a graph."""

from dataclasses import dataclass

import numpy as np
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.proposal_generator.rpn import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    FastRCNNConvFCHead,
    FastRCNNOutputLayers,
    StandardROIHeads,
)
from detectron2.modeling.roi_heads.keypoint_head import KRCNNConvDeconvUpsampleHead
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from torch import nn

from ..errors import InputError
from ..ternary.layers import is_layer
from .backbone import expect
from .boxes import (
    add_anchors,
    apply_deltas,
    by_anchor,
    clip_boxes,
    nonempty,
    of_highest,
    pairs,
    suppress,
)
from .graph import Graph
from .layers import Layers, Value
from .pooling import pool

__all__ = ["Detections", "add_heads", "add_proposals", "box_transform", "first_layer"]


@dataclass
class Detections:
    """Values of what is found: boxes ``(D, 4)``, scores ``(D,)`` and classes ``(D,)``; and, where
    the model has them, masks ``(D, 28, 28)`` and heatmaps of keypoints ``(D, K, 56, 56)``."""

    boxes: str
    scores: str
    classes: str
    masks: str | None = None
    heatmaps: str | None = None


def first_layer(model: nn.Module) -> nn.Module:
    """The first convolution of the RPN's head, which sees all levels."""
    conv = model.proposal_generator.rpn_head.conv
    return conv[0] if isinstance(conv, nn.Sequential) else conv


def add_proposals(layers: Layers, rpn: nn.Module, features: dict[str, Value], limit: str) -> str:
    """Boxes ``(P, 4)`` by falling score, as Detectron2's ``find_top_rpn_proposals``.

    Args:
        layers: added to.
        rpn: the proposal generator.
        features: by the names of the levels.
        limit: as :func:`~.boxes.clip_boxes` has it.
    """
    graph = layers.graph
    expect(layers, rpn, RPN)
    head = expect(layers, rpn.rpn_head, StandardRPNHead)
    anchors = expect(layers, rpn.anchor_generator, DefaultAnchorGenerator)
    transform = box_transform(rpn.box2box_transform)
    most, after = rpn.pre_nms_topk[False], rpn.post_nms_topk[False]
    cells = [cell.numpy() for cell in anchors.cell_anchors]
    convs = list(head.conv) if isinstance(head.conv, nn.Sequential) else [head.conv]
    following = [*convs[1:], head.objectness_logits]
    boxes, scores = [], []
    for level, name in enumerate(rpn.in_features):
        hidden = features[name]
        for conv, after_it in zip(convs, following, strict=True):
            hidden = layers.conv(conv, hidden, layers.plan.of_input(after_it))
        logits = layers.conv(head.objectness_logits, hidden).name
        deltas = layers.conv(head.anchor_deltas, hidden).name
        logits = graph.reshape(graph.op("Transpose", logits, perm=[0, 2, 3, 1]), -1)
        highest, places = of_highest(graph, logits, most)
        cell = cells[level]
        grid = add_anchors(
            graph, features[name].sized, cell, anchors.strides[level], anchors.offset
        )
        deltas = by_anchor(graph, deltas, len(cell))
        found = apply_deltas(
            graph,
            graph.op("Unsqueeze", graph.gather(deltas, places), graph.constant([1])),
            graph.gather(grid, places),
            *transform,
        )
        found = clip_boxes(graph, graph.op("Squeeze", found, graph.constant([1])), limit)
        solid = nonempty(graph, found)
        found, highest = (graph.op("Compress", each, solid, axis=0) for each in (found, highest))
        batched = graph.op("Unsqueeze", highest, graph.constant([0, 1]))
        one = graph.op("Unsqueeze", found, graph.constant([0]))
        *_, kept = suppress(graph, one, batched, rpn.nms_thresh, after, None)
        boxes.append(graph.gather(found, kept))
        scores.append(graph.gather(highest, kept))
    _, places = of_highest(graph, graph.op("Concat", *scores, axis=0), after)
    return graph.gather(graph.op("Concat", *boxes, axis=0), places)


def box_transform(transform) -> tuple[tuple, float]:
    """Weights and clamp of a transform of boxes."""
    if type(transform) is not Box2BoxTransform:
        raise InputError(f"the export does not know boxes by {type(transform).__name__}")
    return transform.weights, transform.scale_clamp


def add_heads(
    layers: Layers,
    heads: nn.Module,
    features: dict[str, Value],
    proposals: str,
    limit: str,
    threshold: float | None = None,
) -> Detections:
    """Detections of the heads.

    Args:
        layers: added to.
        heads: Detectron2's standard or cascaded ones.
        features: by the names of the levels.
        proposals: boxes ``(P, 4)``.
        limit: as :func:`~.boxes.clip_boxes` has it.
        threshold: score above which a detection counts, in place of the model's own.
    """
    graph = layers.graph
    expect(layers, heads, StandardROIHeads, CascadeROIHeads)
    levels = [features[name] for name in heads.box_in_features]
    cascaded = isinstance(heads, CascadeROIHeads)
    stages = list(zip(heads.box_head, heads.box_predictor, strict=True)) if cascaded else [
        (heads.box_head, heads.box_predictor)
    ]  # fmt: skip
    all_scores = []
    boxes = proposals
    for place, (head, predictor) in enumerate(stages):
        expect(layers, predictor, FastRCNNOutputLayers)
        if getattr(predictor, "use_sigmoid_ce", False):
            raise InputError("the export does not know classes by sigmoids (USE_SIGMOID_CE)")
        if place:
            boxes = clip_boxes(graph, graph.op("Squeeze", boxes, graph.constant([1])), limit)
        pooled = pool(layers, heads.box_pooler, levels, boxes)
        hidden = _box_head(layers, head, pooled.value)
        probabilities = graph.op("Softmax", layers.linear(predictor.cls_score, hidden).name, axis=1)
        deltas = layers.linear(predictor.bbox_pred, hidden).name
        all_scores.append(pooled.restore(probabilities))
        deltas = graph.reshape(pooled.restore(deltas), 0, -1, 4)
        boxes = apply_deltas(graph, deltas, boxes, *box_transform(predictor.box2box_transform))
    scores = all_scores[0]
    for other in all_scores[1:]:
        scores = graph.op("Add", scores, other)
    if cascaded:
        scores = graph.op("Mul", scores, graph.number(1.0 / len(stages)))
    if threshold is None:
        threshold = predictor.test_score_thresh
    found = _detections(graph, clip_boxes(graph, boxes, limit), scores, predictor, threshold)
    if heads.mask_on:
        found.masks = _masks(layers, heads, features, found)
    if heads.keypoint_on:
        found.heatmaps = _heatmaps(layers, heads, features, found)
    return found


def _detections(graph: Graph, boxes: str, scores: str, predictor, threshold: float) -> Detections:
    """From boxes ``(P, K or 1, 4)`` and probabilities ``(P, K + 1)``, a class at a time."""
    classes = predictor.num_classes
    most = predictor.test_topk_per_image
    boxes = graph.op("Transpose", boxes, perm=[1, 0, 2])  # (K or 1, P, 4)
    scores = graph.op("Transpose", graph.column(scores, 0, classes), perm=[1, 0])  # (K, P)
    own = predictor.bbox_pred.out_features > 4
    apart = graph.op("Unsqueeze", scores, graph.constant([1 if own else 0]))
    batch, label, place = suppress(graph, boxes, apart, predictor.test_nms_thresh, most, threshold)
    label = batch if own else label
    chosen = pairs(graph, label, place)
    kept = graph.op("GatherND", scores, chosen)
    highest, order = of_highest(graph, kept, most)
    label, place = graph.gather(label, order), graph.gather(place, order)
    found = graph.op("GatherND", boxes, pairs(graph, label, place)) if own else graph.gather(
        graph.op("Squeeze", boxes, graph.constant([0])), place
    )  # fmt: skip
    return Detections(found, highest, label)


def _box_head(layers: Layers, head: nn.Module, value: Value) -> Value:
    """Convolutions, then linear layers; the last one's output is float32."""
    expect(layers, head, FastRCNNConvFCHead)
    found = [module for module in head if is_layer(module)]
    for module, following in zip(found, [*found[1:], None], strict=True):
        target = None if following is None else layers.plan.of_input(following)
        if isinstance(module, nn.Linear):
            if module is _first_linear(found):
                value = layers.keep("Flatten", value, axis=1)
            value = layers.linear(module, value, target, relu=True)
        else:
            value = layers.conv(module, value, target, relu=True)
    return value


def _first_linear(modules: list[nn.Module]) -> nn.Module:
    return next(module for module in modules if isinstance(module, nn.Linear))


def _sequence(layers: Layers, modules: list[nn.Module], value: Value, last: nn.Module) -> Value:
    """Convolutions with their ReLUs, the last of which is followed by ``last``."""
    for module, following in zip(modules, [*modules[1:], last], strict=True):
        value = layers.conv(module, value, layers.plan.of_input(following), relu=True)
    return value


def _masks(layers: Layers, heads: nn.Module, features: dict, found: Detections) -> str:
    graph, head = layers.graph, expect(layers, heads.mask_head, MaskRCNNConvUpsampleHead)
    levels = [features[name] for name in heads.mask_in_features]
    pooled = pool(layers, heads.mask_pooler, levels, found.boxes)
    value = _sequence(layers, head.conv_norm_relus, pooled.value, head.deconv)
    value = layers.deconv(head.deconv, value, layers.plan.of_input(head.predictor), relu=True)
    logits = layers.conv(head.predictor, value).name
    if head.predictor.out_channels > 1:
        labels = graph.gather(found.classes, pooled.order)
        count = graph.op("Squeeze", graph.shape(labels), graph.constant([0]))
        rows = graph.op("Range", graph.constant(0), count, graph.constant(1))
        logits = graph.op("GatherND", logits, pairs(graph, rows, labels))
    else:
        logits = graph.op("Squeeze", logits, graph.constant([1]))
    return graph.op("Sigmoid", pooled.restore(logits))


def _heatmaps(layers: Layers, heads: nn.Module, features: dict, found: Detections) -> str:
    graph = layers.graph
    head = expect(layers, heads.keypoint_head, KRCNNConvDeconvUpsampleHead)
    levels = [features[name] for name in heads.keypoint_in_features]
    pooled = pool(layers, heads.keypoint_pooler, levels, found.boxes)
    convs = [module for module in head if is_layer(module)][:-1]
    value = _sequence(layers, convs, pooled.value, head.score_lowres)
    value = layers.deconv(head.score_lowres, Value(value.name))
    scale = graph.constant([1, 1, head.up_scale, head.up_scale], np.float32)
    modes = dict(mode="linear", coordinate_transformation_mode="half_pixel")
    return pooled.restore(graph.op("Resize", value.name, "", scale, **modes))
