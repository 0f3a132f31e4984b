"""What a detector's heads need beside layers on kernels."""

import numpy as np
import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler, convert_boxes_to_pooler_format
from detectron2.structures import Boxes
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ...errors import EngineError
from ...kernels import Map, Maps, roi_align
from ..parts import levels_of
from .layers import SparseConv2d, SparseDeconv2d
from .steps import Steps

__all__ = [
    "KeypointLogits",
    "MaskLogits",
    "SparseBoxHead",
    "SparsePooler",
    "SparseRPNHead",
    "SparseRetinaNetHead",
    "SparseSequence",
]


_WIDTH = 31


class SparseSequence(nn.Module):
    """Layers one after the other, from codes to codes or to float32."""

    def __init__(self, layers: list[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Map, keep: bool = False) -> Map | Tensor:
        for layer in self.layers:
            x, keep = layer(x, keep=keep), False
        return x


class SparseRPNHead(nn.Module):
    """Detectron2's ``StandardRPNHead`` on kernels."""

    def __init__(self, conv: SparseSequence, logits: SparseConv2d, deltas: SparseConv2d):
        super().__init__()
        self.conv, self.objectness_logits, self.anchor_deltas = conv, logits, deltas

    def forward(self, features: list[Map]) -> tuple[list[Tensor], list[Tensor]]:
        """Levels to float32 logits and deltas of each."""
        logits, deltas = [], []
        for feature in features:
            hidden = self.conv(feature, keep=True)
            logits.append(self.objectness_logits(hidden, keep=True))
            deltas.append(self.anchor_deltas(hidden))
        return logits, deltas


class SparseRetinaNetHead(nn.Module):
    """Detectron2's ``RetinaNetHead`` on kernels; it frees the features."""

    def __init__(
        self,
        cls_subnet: SparseSequence,
        cls_score: SparseConv2d,
        bbox_subnet: SparseSequence,
        bbox_pred: SparseConv2d,
    ):
        super().__init__()
        self.cls_subnet, self.cls_score = cls_subnet, cls_score
        self.bbox_subnet, self.bbox_pred = bbox_subnet, bbox_pred

    def forward(self, features: list[Map]) -> tuple[list[Tensor], list[Tensor]]:
        """Levels to float32 logits and deltas of each."""
        logits = [self.cls_score(self.cls_subnet(x, keep=True)) for x in features]
        deltas = [self.bbox_pred(self.bbox_subnet(x, keep=True)) for x in features]
        for feature in features:
            feature.free()
        return logits, deltas


class SparsePooler(nn.Module):
    """Pools maps to what they stand for themselves, boxes and samples as in Detectron2.

    Args:
        pooler: Detectron2's.
        features: what the features stand for.
        flat: give boxes as pixels of one picture with ``C · height · width`` channels, as a linear
            layer takes them.
        maps: memory for outputs.

    Raises:
        EngineError: it pools in another way than ROIAlign.
    """

    def __init__(self, pooler: ROIPooler, features: Steps, flat: bool, maps: Maps):
        super().__init__()
        square = pooler.output_size[0] == pooler.output_size[1]
        if not square or any(type(each) is not ROIAlign for each in pooler.level_poolers):
            raise EngineError("its boxes are not pooled by ROIAlign into squares")
        self.pooler = pooler
        self._features, self._flat, self._maps = features, flat, maps

    def forward(self, x: list[Map], box_lists: list[Boxes]) -> Map:
        """Levels and boxes to ``(boxes, C, height, width)``."""
        for level in x:  # whose planes are free then, for what comes
            level.by_pixel(torch.get_num_threads())
        boxes = convert_boxes_to_pooler_format(box_lists)
        bins, channels = self.pooler.output_size[0], x[0].shape[1]
        shape = (len(boxes), channels, bins, bins)
        if self._flat:
            shape = (1, channels * bins * bins, *_picture_of(len(boxes)))
        out = Map(shape, self._features.low, self._features.high, self._maps)
        aligns = self.pooler.level_poolers
        roi_align(
            x,
            [align.spatial_scale for align in aligns],
            levels_of(self.pooler, box_lists).numpy(),
            boxes.numpy(),
            aligns[0].sampling_ratio,
            aligns[0].aligned,
            bins,
            out,
            self._flat,
            torch.get_num_threads(),
        )
        out.boxes = len(boxes)
        return out


class SparseBoxHead(nn.Module):
    """Detectron2's ``FastRCNNConvFCHead``: convolutions, then linear layers.

    Args:
        convs: on boxes as pictures; None where there are none, and boxes come flat.
        linear: on one pixel a box.
        output_shape: as Detectron2 has it.
    """

    def __init__(self, convs: SparseSequence | None, linear: SparseSequence, output_shape, maps):
        super().__init__()
        self.convs, self.linear = convs, linear
        self._output_shape, self._maps = output_shape, maps

    @property
    def output_shape(self):
        return self._output_shape

    def forward(self, x: Map) -> Tensor:
        """Codes to float32 ``(boxes, F)``."""
        count = x.boxes
        if self.convs is not None:
            x = self.convs(x)
            flat = x.codes().reshape(count, -1).T
            height, width = _picture_of(count)
            flat = np.pad(flat, ((0, 0), (0, height * width - count)))
            pixels = Map((1, len(flat), height, width), x.low, x.high, self._maps)
            x.free()
            x = pixels.set(flat.reshape(1, -1, height, width))
        return self.linear(x)[0].flatten(1)[:, :count].T.contiguous()


def _picture_of(count: int) -> tuple[int, int]:
    """Height and width of a picture with a pixel for each box; a wide one has wide margins."""
    return max(-(-count // _WIDTH), 1), _WIDTH


class MaskLogits(nn.Module):
    """The layers of Detectron2's ``MaskRCNNConvUpsampleHead``.

    Args:
        convs: up to the transposed convolution.
        deconv: the transposed convolution, up to its shuffle.
        predictor: on what it gives, whatever the order of pixels.
    """

    def __init__(self, convs: SparseSequence, deconv: SparseDeconv2d, predictor: SparseConv2d):
        super().__init__()
        self.convs, self.deconv, self.predictor = convs, deconv, predictor

    def forward(self, x: Map) -> Tensor:
        """Codes to float32 ``(boxes, classes, 2 · height, 2 · width)``."""
        x = self.deconv(self.convs(x))
        count, channels, height, width = x.shape
        quarter = channels // 4
        parts = [
            self.predictor(x.channels(i * quarter, (i + 1) * quarter), keep=True) for i in range(4)
        ]
        x.free()
        classes = parts[0].shape[1]
        out = parts[0].new_empty(count, classes, height, 2, width, 2)
        for i, part in enumerate(parts):
            out[:, :, :, i // 2, :, i % 2] = part
        return out.reshape(count, classes, 2 * height, 2 * width)


class KeypointLogits(nn.Module):
    """The layers of Detectron2's ``KRCNNConvDeconvUpsampleHead``.

    Args:
        convs: its convolutions, up to float32.
        deconv: its last layer, in float.
        factor: by which its maps are scaled in the end.
    """

    def __init__(self, convs: SparseSequence, deconv: nn.ConvTranspose2d, factor: int):
        super().__init__()
        self.convs, self.deconv = convs, deconv
        self._factor = factor

    def forward(self, x: Map) -> Tensor:
        """Codes to float32 ``(boxes, keypoints, height, width)``."""
        x = self.deconv(self.convs(x))
        return interpolate(x, scale_factor=self._factor, mode="bilinear", align_corners=False)
