"""Anchors, boxes and their suppression as operators of a graph."""

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper

from .graph import Graph

__all__ = [
    "add_anchors",
    "apply_deltas",
    "as_index",
    "by_anchor",
    "clip_boxes",
    "nonempty",
    "of_highest",
    "pairs",
    "suppress",
    "zeros",
]


def as_index(graph: Graph, chosen: str) -> str:
    """int64 ``(K,)``: where a boolean ``(N,)`` is true."""
    return graph.op("Squeeze", graph.op("NonZero", chosen), graph.constant([0]))


def add_anchors(graph: Graph, feature: str, cell: np.ndarray, stride: int, offset: float) -> str:
    """Anchors ``(height · width · A, 4)`` of a feature map, as Detectron2's default generator.

    Args:
        graph: added to.
        feature: ``(1, C, height, width)``.
        cell: anchors of one place ``(A, 4)``.
        stride, offset: of the generator.
    """
    axes = []
    for axis, shape in ((3, (1, -1, 1, 1)), (2, (-1, 1, 1, 1))):
        size = graph.op("Squeeze", graph.size(feature, axis), graph.constant([0]))
        steps = graph.op("Range", graph.constant(0), size, graph.constant(1))
        places = graph.op("Mul", graph.cast(steps), graph.number(stride))
        places = graph.op("Add", places, graph.number(offset * stride))
        axes.append(graph.reshape(places, *shape))
    sizes = graph.op("Slice", graph.shape(feature), *map(graph.constant, ([2], [4], [0])))
    whole = graph.op("Concat", sizes, graph.constant([1, 1]), axis=0)
    x, y = (graph.op("Expand", axis, whole) for axis in axes)
    shifts = graph.op("Concat", x, y, x, y, axis=3)
    cell = graph.constant(cell.reshape(1, 1, -1, 4), np.float32)
    return graph.reshape(graph.op("Add", shifts, cell), -1, 4)


def apply_deltas(
    graph: Graph, deltas: str, boxes: str, weights: Sequence[float], clamp: float
) -> str:
    """Boxes ``(N, K, 4)`` from deltas ``(N, K, 4)`` and boxes ``(N, 4)`` (Detectron2's
    ``Box2BoxTransform``)."""
    boxes = graph.op("Unsqueeze", boxes, graph.constant([1]))
    left, upper, right, lower = (graph.column(boxes, i, i + 1) for i in range(4))
    half = graph.number(0.5)
    sides = []
    for i, (low, high) in enumerate(((left, right), (upper, lower))):
        size = graph.op("Sub", high, low)
        center = graph.op("Add", low, graph.op("Mul", size, half))
        moved = graph.op("Div", graph.column(deltas, i, i + 1), graph.number(weights[i]))
        grown = graph.op("Div", graph.column(deltas, i + 2, i + 3), graph.number(weights[i + 2]))
        grown = graph.op("Exp", graph.op("Min", grown, graph.number(clamp)))
        center = graph.op("Add", graph.op("Mul", moved, size), center)
        reach = graph.op("Mul", graph.op("Mul", grown, size), half)
        sides.append((graph.op("Sub", center, reach), graph.op("Add", center, reach)))
    (left, right), (upper, lower) = sides
    return graph.op("Concat", left, upper, right, lower, axis=2)


def clip_boxes(graph: Graph, boxes: str, limit: str) -> str:
    """Boxes ``(…, 4)`` within a picture; ``limit`` is float32 ``(4,)``, its width, height twice."""
    return graph.op("Min", graph.op("Max", boxes, graph.number(0.0)), limit)


def of_highest(graph: Graph, scores: str, most: int) -> tuple[str, str]:
    """The highest of ``(N,)`` scores, falling, and their places; ``most`` at most."""
    count = graph.op("Min", graph.shape(scores), graph.constant([most]))
    highest, places = graph.op_of("TopK", 2, scores, count, axis=0)
    return highest, places


def suppress(
    graph: Graph, boxes: str, scores: str, overlap: float, most: int, threshold: float | None
) -> list[str]:
    """Non-maximum suppression.

    Args:
        graph: added to.
        boxes: ``(batch, N, 4)``.
        scores: ``(batch, classes, N)``.
        overlap: IoU above which a box of a lower score goes.
        most: boxes that are kept of each class.
        threshold: score above which a box counts; None for all.

    Returns:
        int64 ``(K,)`` each: places in the batch, of the classes, of the boxes.
    """
    limits = [graph.constant([most]), graph.constant([overlap], np.float32)]
    if threshold is not None:
        limits.append(graph.constant([threshold], np.float32))
    kept = graph.op("NonMaxSuppression", boxes, scores, *limits)
    columns = (graph.column(kept, i, i + 1) for i in range(3))
    return [graph.op("Squeeze", column, graph.constant([1])) for column in columns]


def nonempty(graph: Graph, boxes: str) -> str:
    """Boolean ``(N,)``: boxes ``(N, 4)`` with an area."""
    sizes = graph.op("Sub", graph.column(boxes, 2, 4), graph.column(boxes, 0, 2))
    positive = graph.op("Greater", sizes, graph.number(0.0))
    both = (
        graph.op("Squeeze", graph.column(positive, i, i + 1), graph.constant([1])) for i in (0, 1)
    )
    return graph.op("And", *both)


def zeros(graph: Graph, count: str, kind: int = TensorProto.INT64) -> str:
    """As many zeros as an int64 ``(1,)`` says."""
    return graph.op("ConstantOfShape", count, value=helper.make_tensor("value", kind, [1], [0]))


def pairs(graph: Graph, first: str, second: str) -> str:
    """Places ``(K, 2)`` for GatherND."""
    columns = (graph.op("Unsqueeze", each, graph.constant([1])) for each in (first, second))
    return graph.op("Concat", *columns, axis=1)


def by_anchor(graph: Graph, deltas: str, anchors: int) -> str:
    """``(1, 4 · A, height, width)`` to ``(height · width · A, 4)``."""
    sizes = graph.op("Slice", graph.shape(deltas), *map(graph.constant, ([2], [4], [0])))
    shape = graph.op("Concat", graph.constant([anchors, 4]), sizes, axis=0)
    apart = graph.op("Reshape", deltas, shape)
    return graph.reshape(graph.op("Transpose", apart, perm=[2, 3, 0, 1]), -1, 4)
