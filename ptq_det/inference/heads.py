"""What a detector's heads need beside integer layers."""

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor, nn

from .ranges import Quantization

__all__ = ["Int8Pooler", "Int8RPNHead"]


class Int8Pooler(nn.Module):
    """Pools uint8 features in float, and quantizes what comes out as they were."""

    def __init__(self, pooler: ROIPooler, features: Quantization):
        super().__init__()
        self.pooler = pooler
        self._features = features

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """uint8 levels and boxes to uint8 ``(boxes, C, height, width)``, channels-last."""
        pooled = self.pooler([self._features.dequantize(level) for level in x], box_lists)
        return self._features.quantize(pooled).contiguous(memory_format=torch.channels_last)


class Int8RPNHead(nn.Module):
    """Detectron2's ``StandardRPNHead`` with integer layers."""

    def __init__(self, conv: nn.Module, objectness_logits: nn.Module, anchor_deltas: nn.Module):
        super().__init__()
        self.conv = conv
        self.objectness_logits, self.anchor_deltas = objectness_logits, anchor_deltas

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """uint8 levels to float32 logits and deltas of each."""
        hidden = [self.conv(x) for x in features]
        logits = [self.objectness_logits(x) for x in hidden]
        return logits, [self.anchor_deltas(x) for x in hidden]
