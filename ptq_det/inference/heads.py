"""What a detector's heads need beside integer layers."""

from concurrent.futures import ThreadPoolExecutor

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor, nn

from .ranges import Quantization

__all__ = ["FloatMaps", "Int8Pooler", "Int8RPNHead", "ParallelPooler"]


class ParallelPooler(nn.Module):
    """A ``ROIAlign`` whose boxes are shared out among threads; torchvision's uses one on a CPU."""

    def __init__(self, pooler: nn.Module):
        super().__init__()
        self.pooler = pooler

    def forward(self, x: Tensor, boxes: Tensor) -> Tensor:
        threads = min(torch.get_num_threads(), max(1, len(boxes)))
        if threads == 1:
            return self.pooler(x, boxes)
        with ThreadPoolExecutor(threads) as pool:
            parts = pool.map(lambda part: self.pooler(x, part), boxes.tensor_split(threads))
            return torch.cat(list(parts))


class FloatMaps:
    """uint8 features as float32, (code − zero point), kept from one pooler to the next.

    Args:
        zero: the zero point of all features.
    """

    def __init__(self, zero: int):
        self._zero = zero
        self._codes: list[Tensor] = []
        self._maps: list[Tensor] = []

    def of(self, codes: list[Tensor], keep: bool) -> list[Tensor]:
        """The maps; with ``keep`` the next call with the same codes finds them made."""
        known = len(codes) == len(self._codes)
        if not known or any(a is not b for a, b in zip(codes, self._codes, strict=True)):
            self._maps = [self._made(x) for x in codes]
        maps = self._maps
        self._codes, self._maps = (list(codes), maps) if keep else ([], [])
        return maps

    def _made(self, x: Tensor) -> Tensor:
        # One pass from channels-last codes to what torchvision's kernel reads.
        return torch.empty(x.shape).copy_(x).sub_(self._zero)


class Int8Pooler(nn.Module):
    """Pools uint8 features in float, and quantizes what comes out as they were.

    Args:
        pooler: Detectron2's.
        features: what the features stand for.
        maps: the features in float, shared by a model's poolers.
        last: no other pooler asks for these features after this one.
    """

    def __init__(self, pooler: ROIPooler, features: Quantization, maps: FloatMaps, last: bool):
        super().__init__()
        pooler.level_poolers = nn.ModuleList(ParallelPooler(each) for each in pooler.level_poolers)
        self.pooler = pooler
        self._zero, self._maps, self._last = features.zero_point, maps, last

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """uint8 levels and boxes to uint8 ``(boxes, C, height, width)``."""
        pooled = self.pooler(self._maps.of(x, keep=not self._last), box_lists)
        # Means of codes are between the codes, so nothing is to be clamped; half is rounded up.
        return pooled.add_(self._zero + 0.5).to(torch.uint8)


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
