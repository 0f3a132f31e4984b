"""What a detector's heads need beside integer layers."""

from concurrent.futures import ThreadPoolExecutor

import torch
from detectron2.modeling.poolers import ROIPooler, convert_boxes_to_pooler_format
from detectron2.structures import Boxes
from torch import Tensor, nn

from ..parts import levels_of
from ..ranges import Quantization

__all__ = ["Int8Pooler", "Int8RPNHead"]

_CHANNELS = 128  # that are pooled at a time, so that no whole map is in memory as float


class Int8Pooler(nn.Module):
    """Pools uint8 features in float, and quantizes what comes out as they were.

    Levels, boxes and samples are Detectron2's. Boxes are shared out among threads; torchvision's
    kernel uses one on a CPU.

    Args:
        pooler: Detectron2's.
        features: what the features stand for.
    """

    def __init__(self, pooler: ROIPooler, features: Quantization):
        super().__init__()
        self.pooler = pooler
        self._zero = features.zero_point

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """uint8 levels and boxes to uint8 ``(boxes, C, height, width)``."""
        boxes = convert_boxes_to_pooler_format(box_lists)
        inference = torch.is_inference_mode_enabled()  # which threads do not take over
        levels = levels_of(self.pooler, box_lists)
        pooled = torch.empty(len(boxes), x[0].shape[1], *self.pooler.output_size, dtype=torch.uint8)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for level, (codes, align) in enumerate(zip(x, self.pooler.level_poolers, strict=True)):
                places = (levels == level).nonzero().squeeze(1)
                parts = [part for part in places.tensor_split(torch.get_num_threads()) if len(part)]
                for first in range(0, codes.shape[1] if parts else 0, _CHANNELS):
                    chosen = slice(first, first + _CHANNELS)
                    some = codes[:, chosen]
                    # One pass from channels-last codes to the layout that the kernel reads.
                    maps = torch.empty(some.shape).copy_(some).sub_(self._zero)

                    def run(part, align=align, maps=maps, chosen=chosen):
                        with torch.inference_mode(inference):
                            means = align(maps, boxes[part]).add_(self._zero + 0.5)
                            # Means of codes are between the codes: nothing to clamp.
                            pooled[part, chosen] = means.to(torch.uint8)

                    list(pool.map(run, parts))
        return pooled


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
