"""ResNet and FPN as operators of a graph."""

from detectron2.modeling import FPN, ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock
from torch import nn

from ..errors import InputError
from .layers import Layers, Value

__all__ = ["add_fpn", "expect"]


def expect(layers: Layers, module: nn.Module, *kinds: type) -> nn.Module:
    """The module, if it is exactly of one of the kinds.

    Raises:
        InputError: it is not.
    """
    if type(module) not in kinds:
        known = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(
            f"{layers.name_of(module)} is a {type(module).__name__}; the export knows {known} there"
        )
    return module


def add_fpn(layers: Layers, fpn: nn.Module, picture: Value, first: nn.Module) -> dict[str, Value]:
    """Features by the names of FPN's levels.

    Args:
        layers: added to.
        fpn: of Detectron2, with a ResNet below.
        picture: ``(1, 3, height, width)``, normalized and padded.
        first: the layer that takes all levels, whose input they are rounded for.
    """
    expect(layers, fpn, FPN)
    if fpn._fuse_type != "sum" or fpn._square_pad:
        raise InputError("the export knows an FPN that adds its levels and pads no squares")
    below = _add_resnet(layers, fpn, picture)
    plan = layers.plan
    features = plan.of_input(first)
    names = list(fpn.in_features)[::-1]
    results, previous = [], None
    for name, lateral, output in zip(names, fpn.lateral_convs, fpn.output_convs, strict=True):
        target = plan.of_input(output)
        if previous is None:
            previous = layers.conv(lateral, below[name], target)
        else:
            upper = _upsample(layers, previous)
            own = layers.conv(lateral, below[name], plan.of_output(lateral))
            previous = layers.add(own, upper, False, target)
        results.insert(0, layers.conv(output, previous, features))
    top = fpn.top_block
    if top is not None:
        expect(layers, top, LastLevelMaxPool, LastLevelP6P7)
        names = list(fpn._out_features)
        source = below.get(top.in_feature) or results[names.index(top.in_feature)]
        if isinstance(top, LastLevelMaxPool):
            results.append(layers.keep("MaxPool", source, kernel_shape=(1, 1), strides=(2, 2)))
        else:
            results.append(layers.conv(top.p6, source, features))
            positive = layers.end(results[-1].name, True, None)
            results.append(layers.conv(top.p7, layers.quantize(positive, features), features))
    return dict(zip(fpn._out_features, results, strict=True))


def _upsample(layers: Layers, value: Value) -> Value:
    twice = layers.graph.constant([1, 1, 2, 2], "float32")
    modes = dict(mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    return layers.keep("Resize", value, "", twice, **modes)


def _add_resnet(layers: Layers, fpn: FPN, picture: Value) -> dict[str, Value]:
    resnet = expect(layers, fpn.bottom_up, ResNet)
    stem = expect(layers, resnet.stem, BasicStem)
    value = layers.conv(stem.conv1, picture, relu=True)
    value = layers.keep("MaxPool", value, kernel_shape=(3, 3), strides=(2, 2), pads=[1] * 4)
    blocks = [block for stage in resnet.stages for block in stage]
    targets = [*(layers.plan.of_input(block.conv1) for block in blocks[1:]), _last(layers, fpn)]
    features = {"stem": value}
    for stage, name in zip(resnet.stages, resnet.stage_names, strict=True):
        for block in stage:
            place = blocks.index(block)
            value = _add_block(layers, block, value, targets[place], in_float=place == 0)
        features[name] = value
    return features


def _last(layers: Layers, fpn: FPN):
    """What the last stage's output stands for: whoever takes it was calibrated."""
    name = fpn.bottom_up.stage_names[-1]
    if name == fpn.in_features[-1]:
        return layers.plan.of_input(fpn.lateral_convs[0])
    raise InputError("the export knows an FPN that takes the last stage of its ResNet")


def _add_block(layers: Layers, block: nn.Module, value: Value, target, in_float: bool) -> Value:
    """A residual block; the first one is in float, whose few channels have the most different
    ranges."""
    expect(layers, block, BasicBlock, BottleneckBlock)
    names = (
        ("conv1", "conv2", "conv3") if isinstance(block, BottleneckBlock) else ("conv1", "conv2")
    )
    convs = [getattr(block, name) for name in names]
    plan = layers.plan
    shortcut, own = value, value
    for conv, following in zip(convs, [*convs[1:], None], strict=True):
        if following is not None:
            goal = None if in_float else plan.of_input(following)
        else:
            goal = None if in_float else plan.of_output(conv)
        own = layers.conv(conv, own, goal, relu=following is not None)
    if block.shortcut is not None:
        goal = None if in_float else plan.of_output(block.shortcut)
        shortcut = layers.conv(block.shortcut, value, goal)
    return layers.add(own, shortcut, True, target)
