"""Features of boxes, pooled from FPN's levels, as operators of a graph."""

from dataclasses import dataclass

import numpy as np
from detectron2.modeling.poolers import ROIPooler
from torch import nn

from ..errors import InputError
from .backbone import expect
from .boxes import as_index, zeros
from .graph import Graph
from .layers import Layers, Value

__all__ = ["Pooled", "pool"]


@dataclass
class Pooled:
    """Pooled features, sorted by level, and the way back to the order of the boxes.

    Attributes:
        value: ``(N, C, height, width)``.
        order: place of each among the boxes.
    """

    graph: Graph
    value: Value
    order: str

    def restore(self, value: str) -> str:
        """Rows in the order of the boxes."""
        graph = self.graph
        count = graph.op("Squeeze", graph.shape(self.order), graph.constant([0]))
        places = graph.op("Range", graph.constant(0), count, graph.constant(1))
        back = graph.op("ScatterElements", self.order, self.order, places, axis=0)
        return graph.gather(value, back)


def pool(layers: Layers, pooler: nn.Module, levels: list[Value], boxes: str) -> Pooled:
    """Boxes pooled from the level of their size (FPN, equation 1)."""
    graph = layers.graph
    expect(layers, pooler, ROIPooler)
    area = graph.op("Sub", graph.column(boxes, 2, 4), graph.column(boxes, 0, 2))
    area = graph.op("Mul", graph.column(area, 0, 1), graph.column(area, 1, 2))
    side = graph.op("Sqrt", graph.op("Squeeze", area, graph.constant([1])))
    side = graph.op("Div", side, graph.number(pooler.canonical_box_size))
    side = graph.op("Log", graph.op("Add", side, graph.number(1e-8)))
    level = graph.op("Div", side, graph.number(np.log(2)))
    level = graph.op("Floor", graph.op("Add", level, graph.number(pooler.canonical_level)))
    ends = (pooler.min_level, pooler.max_level)
    level = graph.op("Clip", level, *(graph.number(end) for end in ends))
    pooled, order = [], []
    for number, (feature, align) in enumerate(zip(levels, pooler.level_poolers, strict=True)):
        if not getattr(align, "aligned", False):
            raise InputError("the export knows ROIAlignV2 alone")
        mine = as_index(graph, graph.op("Equal", level, graph.number(number + ends[0])))
        own = graph.gather(boxes, mine)
        value = Value(
            graph.op(
                "RoiAlign",
                feature.name,
                own,
                zeros(graph, graph.shape(mine)),
                output_height=pooler.output_size[0],
                output_width=pooler.output_size[1],
                sampling_ratio=max(align.sampling_ratio, 0),
                spatial_scale=float(align.spatial_scale),
                coordinate_transformation_mode="half_pixel",
            )
        )
        pooled.append(layers.quantize(value, feature.represents).name)  # small before it is copied
        order.append(mine)
    value = layers.quantize(Value(graph.op("Concat", *pooled, axis=0)), levels[0].represents)
    return Pooled(graph, value, graph.op("Concat", *order, axis=0))
