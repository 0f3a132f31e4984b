"""What the engines on integers share of Detectron2's parts."""

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes
from torch import Tensor, nn

from ..errors import EngineError

__all__ = ["LikeFPN", "expect", "levels_of", "main_path"]


class LikeFPN(Backbone):
    """A backbone in the place of a float FPN, whose rules for a picture's size are taken over.

    Args:
        shapes: channels and strides of the outputs by their names.
        fpn: the float FPN.
    """

    def __init__(self, shapes: dict[str, ShapeSpec], fpn: Backbone):
        super().__init__()
        self._shapes = shapes
        self._divisibility, self._padding = fpn.size_divisibility, fpn.padding_constraints

    @property
    def size_divisibility(self):
        return self._divisibility

    @property
    def padding_constraints(self):
        return self._padding

    def output_shape(self):
        return self._shapes


def expect(module: nn.Module, kind: type) -> nn.Module:
    """The module, or :class:`EngineError` if it is of another kind."""
    if not isinstance(module, kind):
        raise EngineError(f"it has a {type(module).__name__}, not a {kind.__name__}")
    return module


def main_path(block: nn.Module, name: str) -> list[nn.Module]:
    """Convolutions of a residual block but its shortcut; ``name`` is for the error."""
    match block:
        case BottleneckBlock():
            return [block.conv1, block.conv2, block.conv3]
        case BasicBlock():
            return [block.conv1, block.conv2]
    raise EngineError(f"{name} is a {type(block).__name__}")


def levels_of(pooler: ROIPooler, box_lists: list[Boxes]) -> Tensor:
    """The level that each box is pooled from, as Detectron2 has it; int64."""
    if len(pooler.level_poolers) == 1:
        return torch.zeros(sum(map(len, box_lists)), dtype=torch.int64)
    return assign_boxes_to_levels(
        box_lists,
        pooler.min_level,
        pooler.max_level,
        pooler.canonical_box_size,
        pooler.canonical_level,
    )
