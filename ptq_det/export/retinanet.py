"""RetinaNet's head and its detections as operators of a graph."""

import numpy as np
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from torch import nn

from ..ternary.layers import is_layer
from .backbone import expect
from .boxes import add_anchors, apply_deltas, by_anchor, of_highest, suppress
from .graph import Graph
from .layers import Layers, Value
from .rcnn import Detections, box_transform

__all__ = ["add_retinanet"]


def add_retinanet(
    layers: Layers, model: nn.Module, features: dict[str, Value], threshold: float | None = None
) -> Detections:
    """Detections, as Detectron2's ``RetinaNet.inference_single_image``.

    Args:
        layers: added to.
        model: the whole network.
        features: by the names of the levels.
        threshold: score above which a detection counts, in place of the model's own.
    """
    graph = layers.graph
    head = expect(layers, model.head, RetinaNetHead)
    anchors = expect(layers, model.anchor_generator, DefaultAnchorGenerator)
    transform = box_transform(model.box2box_transform)
    threshold = model.test_score_thresh if threshold is None else threshold
    cells = [cell.numpy() for cell in anchors.cell_anchors]
    boxes, scores, labels = [], [], []
    for level, name in enumerate(model.head_in_features):
        value = features[name]
        logits = _subnet(layers, head.cls_subnet, head.cls_score, value)
        deltas = _subnet(layers, head.bbox_subnet, head.bbox_pred, value)
        cell = cells[level]
        grid = add_anchors(graph, value.sized, cell, anchors.strides[level], anchors.offset)
        flat = graph.reshape(_by_place(graph, logits, len(cell), model.num_classes), -1)
        highest, places = of_highest(graph, graph.op("Sigmoid", flat), model.test_topk_candidates)
        classes = graph.constant(model.num_classes)
        label = graph.op("Mod", places, classes)
        place = graph.op("Div", places, classes)
        found = apply_deltas(
            graph,
            graph.op(
                "Unsqueeze",
                graph.gather(by_anchor(graph, deltas, len(cell)), place),
                graph.constant([1]),
            ),
            graph.gather(grid, place),
            *transform,
        )
        boxes.append(graph.op("Squeeze", found, graph.constant([1])))
        scores.append(highest)
        labels.append(label)
    box, score, label = (graph.op("Concat", *each, axis=0) for each in (boxes, scores, labels))
    return _by_class(graph, model, box, score, label, threshold)


def _by_class(graph: Graph, model, boxes: str, scores: str, labels: str, threshold: float):
    """Suppression among boxes of a class: each box has a score for its own class, 0 for others."""
    every = graph.constant(np.arange(model.num_classes).reshape(-1, 1))
    own = graph.cast(graph.op("Equal", every, labels))  # (classes, N)
    apart = graph.op("Unsqueeze", graph.op("Mul", own, scores), graph.constant([0]))
    most = model.max_detections_per_image
    batched = graph.op("Unsqueeze", boxes, graph.constant([0]))
    # The threshold is above 0, so that boxes of other classes never count.
    _, label, place = suppress(
        graph, batched, apart, model.test_nms_thresh, most, max(threshold, 1e-9)
    )
    highest, order = of_highest(graph, graph.gather(scores, place), most)
    place = graph.gather(place, order)
    return Detections(graph.gather(boxes, place), highest, graph.gather(label, order))


def _subnet(layers: Layers, subnet: nn.Sequential, last: nn.Module, value: Value) -> str:
    modules = [module for module in subnet if is_layer(module)]
    for module, following in zip(modules, [*modules[1:], last], strict=True):
        value = layers.conv(module, value, layers.plan.of_input(following), relu=True)
    return layers.conv(last, value).name


def _by_place(graph: Graph, logits: str, anchors: int, classes: int) -> str:
    """``(1, A · K, height, width)`` to ``(height, width, A, K)``."""
    sizes = graph.op("Slice", graph.shape(logits), *map(graph.constant, ([2], [4], [0])))
    shape = graph.op("Concat", graph.constant([anchors, classes]), sizes, axis=0)
    return graph.op("Transpose", graph.op("Reshape", logits, shape), perm=[2, 3, 0, 1])
