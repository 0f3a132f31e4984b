"""A small model that no config describes, with one of each thing that its packed file can hold."""

import torch
import torch.nn.functional as F
from detectron2.config import LazyCall, instantiate
from detectron2.layers import Conv2d
from torch import Tensor, nn

from ...packing.container import Container
from ...packing.packed_model import PackedModel
from ...ternary.ternarize import ternarize

__all__ = ["MODULE", "Given", "module_content"]

MODULE = '["module"]'
"""Text of the architecture in the header of its file."""


class Given(nn.Module):
    """Layers of each kind, a matrix of no layer, vectors, statistics and integers."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.body = Conv2d(width, width, 3, padding=1, groups=2, norm=nn.BatchNorm2d(width))
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.line = nn.Conv1d(width, width, 1)
        self.last = nn.Linear(width, 4)
        self.places = nn.Parameter(torch.randn(1, 256, width))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("steps", torch.arange(256))
        self.register_buffer("mask", torch.ones(256, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.up(self.body(self.first(x)).relu()), 16)
        x = self.line(x.flatten(2)).transpose(1, 2)
        steps = self.steps.clamp(0, len(self.steps) - 1)
        return self.last(self.norm(x + self.places[:, steps] * self.mask[:, None]))


def module_content() -> Container:
    """What its packed file holds, with a lazy config and a range."""
    node = LazyCall(Given)(width=16)
    model = instantiate(node).eval()
    ternarize(model, {"skip": ["first"]})
    packed = PackedModel.of(model, node)
    packed.ranges = {"last": (-1.0, 4.0)}
    return packed.to_container()
