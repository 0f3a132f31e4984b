"""ResNet and FPN on maps of codes."""

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

from ...kernels import Map, Maps
from ..parts import LikeFPN
from .layers import SparseConv2d, to_map
from .steps import Steps

__all__ = ["SparseBlock", "SparseFPN", "SparseResNet", "SparseTopConvolutions"]


class SparseBlock(nn.Module):
    """A residual block.

    Args:
        convs: the convolutions of its main path, of which the last adds the shortcut.
        shortcut: its projection, or None.
        added: what the shortcut's codes stand for.
    """

    def __init__(self, convs: list[SparseConv2d], shortcut: SparseConv2d | None, added: Steps):
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.shortcut = shortcut
        self._added = added

    def forward(self, x: Map, keep: bool) -> Map:
        """Codes to codes; ``x`` is overwritten or freed, unless it is to be kept."""
        first, *middle, last = self.convs
        y = first(x, keep=True)
        for conv in middle:
            y = conv(y)
        if self.shortcut is not None:
            added = self.shortcut(x, keep=keep)
        else:
            added = x.copy() if keep else x
        return last(y, added, self._added)


class SparseResNet(nn.Module):
    """Stem and stages, by the names of what they give.

    Args:
        stem: its convolution.
        pixels: what the codes of a picture stand for.
        kept: names of the stages whose outputs are used.
    """

    def __init__(
        self,
        stem: SparseConv2d,
        pixels: Steps,
        stages: dict[str, nn.ModuleList],
        kept: set[str],
        maps: Maps,
    ):
        super().__init__()
        self.stem, self.stages = stem, nn.ModuleDict(stages)
        self._pixels, self._kept, self._maps = pixels, kept, maps

    def forward(self, x: Tensor) -> dict[str, Map]:
        """A picture ``(N, 3, height, width)`` to the outputs of the stages that are used."""
        threads = torch.get_num_threads()
        stem = self.stem(to_map(x, self._pixels, self._maps))
        x, outputs = stem.max_pool(3, 2, 1, threads), {}
        stem.free()
        kept = False
        for name, stage in self.stages.items():
            for block in stage:
                x, kept = block(x, kept), False
            if name in self._kept:
                outputs[name], kept = x, True
        return outputs


class SparseTopConvolutions(nn.Module):
    """RetinaNet's levels 6 and 7."""

    def __init__(self, p6: SparseConv2d, p7: SparseConv2d, in_feature: str):
        super().__init__()
        self.p6, self.p7, self.in_feature = p6, p7, in_feature

    def forward(self, x: Map) -> list[Map]:
        p6 = self.p6(x, keep=True)
        positive = p6.copy(0)
        return [p6, self.p7(positive)]


class SparseFPN(LikeFPN):
    """Bottom-up network and FPN, whose outputs all stand for the same numbers.

    Args:
        bottom_up: the network.
        lateral: lateral convolutions, from the highest level down.
        output: output convolutions, in the same order.
        sums: what the sums of the levels stand for, in the same order.
        top_block: :class:`SparseTopConvolutions`, or None for every second pixel of the last level.
        in_features: names of what ``bottom_up`` gives that is used, from the lowest level up.
        features: what the outputs stand for.
        shapes: channels and strides of the outputs by their names.
        fpn: the float FPN, whose rules for a picture's size are taken over.

    Attributes:
        step: what a code of the outputs stands for.
    """

    def __init__(
        self,
        bottom_up: SparseResNet,
        lateral: list[SparseConv2d],
        output: list[SparseConv2d],
        sums: list[Steps],
        top_block: SparseTopConvolutions | None,
        in_features: tuple[str, ...],
        features: Steps,
        shapes: dict[str, ShapeSpec],
        fpn: Backbone,
    ):
        super().__init__(shapes, fpn)
        self.bottom_up, self.top_block = bottom_up, top_block
        self.lateral, self.output = nn.ModuleList(lateral), nn.ModuleList(output)
        self._sums, self._in_features = sums, in_features
        self.step = features.step

    def forward(self, x: Tensor) -> dict[str, Map]:
        """A picture ``(N, 3, height, width)`` to features by name."""
        threads = torch.get_num_threads()
        features, results, level = self.bottom_up(x), [], None
        top = None if self.top_block is None else features.get(self.top_block.in_feature)
        places = zip(self.lateral, self.output, reversed(self._in_features), strict=True)
        for i, (lateral, output, name) in enumerate(places):
            feature = features[name]
            if level is None:
                level = lateral(feature, keep=feature is top)
            else:
                larger = level.upsample(feature.shape[2:], threads)
                level.free()
                level = lateral(feature, larger, self._sums[i - 1], keep=feature is top)
            results.insert(0, output(level, keep=True))
        level.free()
        if self.top_block is None:
            results.append(results[-1].max_pool(1, 2, 0, threads))
        else:
            results += self.top_block(results[-1] if top is None else top)
            if top is not None:
                top.free()
        return dict(zip(self._shapes, results, strict=True))
