"""ResNet and FPN on uint8 tensors."""

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

from ..parts import LikeFPN
from ..ranges import Quantization
from .layers import Int8Conv2d

__all__ = ["Int8Block", "Int8FPN", "Int8ResNet", "Int8Start", "Int8TopConvolutions"]


class Int8Start(nn.Module):
    """Stem and first residual block, in float; what they give is quantized.

    Ranges of their few channels differ most, and what is lost here reaches everything behind: as
    integers they made most of the error of a ResNet-50's features (docs/results.md).
    """

    def __init__(self, stem: nn.Module, block: nn.Module, target: Quantization):
        super().__init__()
        self.stem, self.block = stem, block
        self._target = target

    def forward(self, x: Tensor) -> Tensor:
        """float32 ``(N, 3, height, width)`` to uint8."""
        x = self.block(self.stem(x.contiguous(memory_format=torch.channels_last)))
        return self._target.quantize(x)


class Int8Block(nn.Module):
    """A residual block.

    Args:
        convs: the convolutions of its main path, of which the last adds the shortcut.
        shortcut: its projection, or None.
        added: what the shortcut's uint8 output stands for.
    """

    def __init__(self, convs: list[Int8Conv2d], shortcut: Int8Conv2d | None, added: Quantization):
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.shortcut = shortcut
        self._added = added

    def forward(self, x: Tensor) -> Tensor:
        """uint8 to uint8; overwrites ``x`` where there is no projection."""
        y = x
        *first, last = self.convs
        for conv in first:
            y = conv(y)
        return last.add_to(x if self.shortcut is None else self.shortcut(x), self._added, y)


class Int8ResNet(nn.Module):
    """Start and stages, by the names of what they give."""

    def __init__(self, start: Int8Start, stages: dict[str, nn.Sequential]):
        super().__init__()
        self.start = start
        self.stages = nn.ModuleDict(stages)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """A picture ``(N, 3, height, width)`` to the uint8 outputs of all stages."""
        x, outputs = self.start(x), {}
        for name, stage in self.stages.items():
            x = outputs[name] = stage(x)
        return outputs


class Int8TopConvolutions(nn.Module):
    """RetinaNet's levels 6 and 7."""

    num_levels = 2

    def __init__(self, p6: Int8Conv2d, p7: Int8Conv2d, in_feature: str, zero: int):
        super().__init__()
        self.p6, self.p7, self.in_feature = p6, p7, in_feature
        self._zero = zero

    def forward(self, x: Tensor) -> list[Tensor]:
        p6 = self.p6(x)
        return [p6, self.p7(p6.clamp(min=self._zero))]


class Int8FPN(LikeFPN):
    """Bottom-up network and FPN; its uint8 outputs all stand for the same numbers.

    Args:
        bottom_up: the network.
        lateral: lateral convolutions, from the highest level down.
        output: output convolutions, in the same order.
        sums: what the uint8 sums of the levels stand for, in the same order.
        top_block: :class:`Int8TopConvolutions`, or None for every second pixel of the last level.
        in_features: names of what ``bottom_up`` gives that is used, from the lowest level up.
        shapes: channels and strides of the outputs by their names.
        fpn: the float FPN, whose rules for a picture's size are taken over.
    """

    def __init__(
        self,
        bottom_up: Int8ResNet,
        lateral: list[Int8Conv2d],
        output: list[Int8Conv2d],
        sums: list[Quantization],
        top_block: Int8TopConvolutions | None,
        in_features: tuple[str, ...],
        shapes: dict[str, ShapeSpec],
        fpn: Backbone,
    ):
        super().__init__(shapes, fpn)
        self.bottom_up, self.top_block = bottom_up, top_block
        self.lateral, self.output = nn.ModuleList(lateral), nn.ModuleList(output)
        self._sums, self._in_features = sums, in_features

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """A picture ``(N, 3, height, width)`` to uint8 features by name."""
        features, results, level = self.bottom_up(x), [], None
        top = None if self.top_block is None else features.get(self.top_block.in_feature)
        places = zip(self.lateral, self.output, reversed(self._in_features), strict=True)
        for i, (lateral, output, name) in enumerate(places):
            feature = features.pop(name)  # which is not needed any more after this
            if level is None:
                level = lateral(feature)
            else:
                level = F.interpolate(level, scale_factor=2.0, mode="nearest")
                level = lateral.add_to(level, self._sums[i - 1], feature)
            results.insert(0, output(level))
        if self.top_block is None:
            results.append(results[-1][:, :, ::2, ::2])
        else:
            results += self.top_block(results[-1] if top is None else top)
        return dict(zip(self._shapes, results, strict=True))
