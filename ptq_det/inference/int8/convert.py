"""Turns a packed Detectron2 model into one on integers."""

import torch
from detectron2.layers import Conv2d
from detectron2.modeling import FPN, GeneralizedRCNN, ResNet, RetinaNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicStem
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNConvFCHead, StandardROIHeads
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from torch import nn

from ...errors import EngineError
from ...packing.packed_layer import PackedLayer
from ...packing.packed_model import PackedModel
from ...packing.skeleton import fill_layer
from ...ternary.activations import is_relu
from ...ternary.layers import is_layer
from ..calibration import OUTPUT
from ..parts import expect, main_path
from ..ranges import Quantization
from .backbone import Int8Block, Int8FPN, Int8ResNet, Int8Start, Int8TopConvolutions
from .heads import Int8Pooler, Int8RPNHead
from .layers import Int8Conv2d, Int8Deconv2d, Int8Linear, Int8Weights, largest_input

__all__ = ["to_int8"]


def to_int8(model: nn.Module, packed: PackedModel) -> None:
    """Replace backbone and heads by integer ones, in place.

    Args:
        model: plain model of the packed one's architecture; its weights are not looked at.
        packed: weights, and the ranges of the activations.

    Raises:
        EngineError: a part of the model has no integer form; the message names it.
    """
    _Converter(model, packed).convert()


class _Converter:
    def __init__(self, model: nn.Module, packed: PackedModel):
        self._model, self._packed = model, packed
        self._names = {module: name for name, module in model.named_modules()}
        self._made: dict[nn.Module, Int8Weights] = {}

    def convert(self) -> None:
        model = self._model
        match model:
            case GeneralizedRCNN() if type(model) is GeneralizedRCNN:  # PanopticFPN has more heads
                first = expect(model.proposal_generator.rpn_head, StandardRPNHead).conv
                self._features = self._of_input(first[0] if _is_sequence(first) else first)
                model.backbone = self._fpn(model.backbone)
                self._rpn(model.proposal_generator)
                self._roi_heads(model.roi_heads)
            case RetinaNet() if type(model) is RetinaNet:
                head = expect(model.head, RetinaNetHead)
                self._features = self._of_input(head.cls_subnet[0])
                model.backbone = self._fpn(model.backbone)
                for subnet, last in (
                    (head.cls_subnet, head.cls_score),
                    (head.bbox_subnet, head.bbox_pred),
                ):
                    self._sequence(subnet, self._of_input(last))
                head.cls_score = self._conv(head.cls_score, self._of_input(head.cls_score), None)
                head.bbox_pred = self._conv(head.bbox_pred, self._of_input(head.bbox_pred), None)
            case _:
                raise EngineError(f"it is a {type(model).__name__}")

    def _of_input(self, module: nn.Module) -> Quantization:
        name = self._names[module]
        low, high = self._range(name)
        if name not in self._packed.layers:
            raise EngineError(f"the file has no codes of {name}")
        return Quantization.of(low, high, largest_input(self._weights(module)))

    def _range(self, name: str) -> tuple[float, float]:
        if name not in self._packed.ranges:
            raise EngineError(f"the calibration did not reach {name}")
        return self._packed.ranges[name]

    def _weights(self, module: nn.Module) -> Int8Weights:
        if module not in self._made:
            self._made[module] = Int8Weights.of(self._packed.layers[self._names[module]])
        return self._made[module]

    def _conv(self, module, source, target, relu=False) -> Int8Conv2d:
        self._packed_convolution(module)
        return Int8Conv2d(self._weights(module), module, source, target, relu)

    def _packed_convolution(self, module: nn.Module) -> PackedLayer:
        name = self._names[module]
        layer = self._packed.layers.get(name)
        norm = getattr(module, "norm", None)
        if type(module) not in (nn.Conv2d, Conv2d) or layer is None:
            raise EngineError(f"{name} is a {type(module).__name__}")
        if norm is not None and layer.norm is None:
            raise EngineError(f"{name} has a norm that depends on its input")
        return layer

    def _in_float(self, module: nn.Module, convolutions: list[nn.Module]) -> nn.Module:
        """A part of the model as it is, with the packed weights of its convolutions."""
        for conv in convolutions:
            self._fill(conv, self._packed_convolution(conv))
            conv.norm = None
        return module.to(memory_format=torch.channels_last)

    def _fill(self, module: nn.Module, layer: PackedLayer) -> None:
        """Give a layer that stays in float the packed weight and bias."""
        module.bias = None
        fill_layer(module, layer)

    def _fpn(self, fpn: FPN) -> Int8FPN:
        expect(fpn, FPN)
        if fpn._fuse_type != "sum":
            raise EngineError("its FPN does not add its levels")
        sums = [self._of_input(conv) for conv in fpn.output_convs]
        bottom_up = self._resnet(fpn.bottom_up)
        names = fpn.in_features[::-1]
        lateral = [
            self._conv(conv, self._stage_output(fpn, name), target)
            for conv, name, target in zip(fpn.lateral_convs, names, sums, strict=True)
        ]
        output = [
            self._conv(conv, source, self._features)
            for conv, source in zip(fpn.output_convs, sums, strict=True)
        ]
        shapes = fpn.output_shape()
        top = self._top_block(fpn)
        return Int8FPN(bottom_up, lateral, output, sums, top, fpn.in_features, shapes, fpn)

    def _top_block(self, fpn: FPN) -> Int8TopConvolutions | None:
        top = fpn.top_block
        if isinstance(top, LastLevelMaxPool):
            return None
        expect(top, LastLevelP6P7)
        inside = top.in_feature in fpn.bottom_up.output_shape()
        source = self._stage_output(fpn, top.in_feature) if inside else self._features
        p6 = self._conv(top.p6, source, self._features)
        p7 = self._conv(top.p7, self._features, self._features)
        return Int8TopConvolutions(p6, p7, top.in_feature, self._features.zero_point)

    def _resnet(self, resnet: ResNet) -> Int8ResNet:
        expect(resnet, ResNet)
        stem = expect(resnet.stem, BasicStem)
        blocks = [block for stage in resnet.stages for block in stage]
        inputs = [self._of_input(block.conv1) for block in blocks]
        outputs = [*inputs[1:], self._stage_output(self._model.backbone, resnet.stage_names[-1])]
        first = blocks[0]
        shortcut = [] if first.shortcut is None else [first.shortcut]
        start = Int8Start(
            self._in_float(stem, [stem.conv1]),
            self._in_float(first, [*self._path(first), *shortcut]),
            outputs[0],
        )
        made = {
            block: self._block(block, source, target)
            for block, source, target in zip(blocks[1:], inputs[1:], outputs[1:], strict=True)
        }
        stages = {
            name: nn.Sequential(*(made[block] for block in stage if block is not first))
            for name, stage in zip(resnet.stage_names, resnet.stages, strict=True)
        }
        return Int8ResNet(start, stages)

    def _stage_output(self, fpn: FPN, stage: str) -> Quantization:
        """What the output of a stage stands for: whoever takes it was calibrated."""
        names = fpn.bottom_up.stage_names
        place = names.index(stage)
        if place + 1 < len(names):
            return self._of_input(fpn.bottom_up.stages[place + 1][0].conv1)
        if stage in fpn.in_features:
            return self._of_input(fpn.lateral_convs[-1 - fpn.in_features.index(stage)])
        return self._of_input(fpn.top_block.p6)

    def _block(self, block: nn.Module, source: Quantization, target: Quantization) -> Int8Block:
        convs = self._path(block)
        targets = [*map(self._of_input, convs[1:]), target]
        sources = [source, *targets[:-1]]
        made = [self._conv(*each, True) for each in zip(convs, sources, targets, strict=True)]
        if block.shortcut is None:
            return Int8Block(made, None, source)
        added = Quantization.of(*self._range(self._names[block.shortcut] + OUTPUT))
        return Int8Block(made, self._conv(block.shortcut, source, added), added)

    def _path(self, block: nn.Module) -> list[nn.Module]:
        return main_path(block, self._names[block])

    def _rpn(self, rpn: nn.Module) -> None:
        head = rpn.rpn_head
        hidden = self._of_input(head.objectness_logits)
        conv = nn.Sequential(*head.conv) if _is_sequence(head.conv) else nn.Sequential(head.conv)
        self._sequence(conv, hidden)
        rpn.rpn_head = Int8RPNHead(
            conv,
            self._conv(head.objectness_logits, hidden, None),
            self._conv(head.anchor_deltas, hidden, None),
        )

    def _roi_heads(self, heads: nn.Module) -> None:
        expect(heads, StandardROIHeads)
        if isinstance(heads, CascadeROIHeads) or heads.keypoint_on:
            raise EngineError("its heads are cascaded or have keypoints")
        expect(heads.box_head, FastRCNNConvFCHead)
        # Detectron2 would hold the features while it pastes masks, when memory is at its peak.
        heads.register_forward_hook(lambda module, args, output: args[1].clear())
        heads.box_pooler = Int8Pooler(heads.box_pooler, self._features)
        # The predictors are small, and what boxes and scores are made of: they stay in float.
        self._sequence(heads.box_head, None)
        for layer in (heads.box_predictor.cls_score, heads.box_predictor.bbox_pred):
            self._fill(layer, self._packed.layers[self._names[layer]])
        if heads.mask_on:
            expect(heads.mask_head, MaskRCNNConvUpsampleHead)
            heads.mask_pooler = Int8Pooler(heads.mask_pooler, self._features)
            self._sequence(heads.mask_head, None)

    def _sequence(self, sequence: nn.Sequential, target: Quantization | None) -> None:
        """Replace the layers of a sequence, in which each is followed by its ReLU, if any.

        Args:
            target: what the last output is to stand for; None for float32.
        """
        children = list(sequence.named_children())
        layers = [(i, n, m) for i, (n, m) in enumerate(children) if is_layer(m)]
        source = self._features
        for place, (i, name, module) in enumerate(layers):
            following = layers[place + 1][2] if place + 1 < len(layers) else None
            goal = target if following is None else self._of_input(following)
            end = len(children) if following is None else layers[place + 1][0]
            between = children[i + 1 : end]
            activation = getattr(module, "activation", None)
            relu = is_relu(activation) and not isinstance(activation, nn.ReLU6)
            if activation is not None and not relu:
                raise EngineError(f"{self._names[module]} has another end than a ReLU")
            for other, each in between:
                if isinstance(each, nn.ReLU):
                    relu = True
                    setattr(sequence, other, nn.Identity())
                elif not isinstance(each, (nn.Flatten, nn.Identity)):
                    raise EngineError(f"{self._names[module]} has a norm behind it")
            setattr(sequence, name, self._layer(module, source, goal, relu))
            source = goal

    def _layer(self, module, source, target, relu) -> nn.Module:
        if isinstance(module, nn.Linear):
            return Int8Linear(self._weights(module), source, target, relu)
        if isinstance(module, nn.ConvTranspose2d):
            try:
                return Int8Deconv2d(self._weights(module), module, source, target, relu)
            except ValueError as error:
                raise EngineError(f"{self._names[module]}: {error}") from error
        return self._conv(module, source, target, relu)


def _is_sequence(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential)
