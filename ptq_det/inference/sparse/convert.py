"""Turns a packed Detectron2 model into one on the kernels."""

from collections.abc import Iterable

from detectron2.layers import Conv2d
from detectron2.modeling import FPN, GeneralizedRCNN, ResNet, RetinaNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool, LastLevelP6P7
from detectron2.modeling.backbone.resnet import BasicStem
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNConvFCHead, StandardROIHeads
from detectron2.modeling.roi_heads.keypoint_head import KRCNNConvDeconvUpsampleHead
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from torch import nn

from ...errors import EngineError
from ...kernels import Maps
from ...packing.packed_layer import PackedLayer
from ...packing.packed_model import PackedModel
from ...packing.skeleton import fill_layer
from ...ternary.activations import is_relu
from ...ternary.layers import is_layer
from ..calibration import OUTPUT
from ..parts import expect, main_path
from .backbone import SparseBlock, SparseFPN, SparseResNet, SparseTopConvolutions
from .heads import (
    KeypointLogits,
    MaskLogits,
    SparseBoxHead,
    SparsePooler,
    SparseRetinaNetHead,
    SparseRPNHead,
    SparseSequence,
)
from .layers import SparseConv2d, SparseDeconv2d, is_sparse
from .pasting import PastingRCNN
from .steps import DENSE, SPARSE, Steps

__all__ = ["to_sparse"]

_ADDED = 1 << 14  # the largest code of what is only added


def to_sparse(model: nn.Module, packed: PackedModel) -> None:
    """Replace backbone and heads by those on kernels, in place.

    Args:
        model: plain model of the packed one's architecture; its weights are not looked at.
        packed: weights, and the ranges of the activations.

    Raises:
        EngineError: a part of the model has no form here; the message names it.
    """
    _Converter(model, packed).convert()


class _Converter:
    def __init__(self, model: nn.Module, packed: PackedModel):
        self._model, self._packed, self._maps = model, packed, Maps()
        self._shapes: list[tuple] = []  # of the features of the last pictures
        self._names = {module: name for name, module in model.named_modules()}

    def convert(self) -> None:
        model = self._model
        match model:
            case GeneralizedRCNN() if type(model) is GeneralizedRCNN:  # PanopticFPN has more heads
                first = expect(model.proposal_generator.rpn_head, StandardRPNHead).conv
                first = first[0] if isinstance(first, nn.Sequential) else first
                self._features = self._steps(first, *self._pooled(model.roi_heads))
                model.backbone = self._fpn(model.backbone)
                self._rpn(model.proposal_generator)
                self._roi_heads(model.roi_heads)
            case RetinaNet() if type(model) is RetinaNet:
                self._retinanet(model)
            case _:
                raise EngineError(f"it is a {type(model).__name__}")

    def _pooled(self, heads: nn.Module) -> list[nn.Module]:
        """Layers that take pooled features."""
        expect(heads, StandardROIHeads)
        boxes = heads.box_head if isinstance(heads, CascadeROIHeads) else [heads.box_head]
        found = [next(filter(is_layer, head.modules())) for head in boxes]
        others = [heads.mask_head] if heads.mask_on else []
        others += [heads.keypoint_head] if heads.keypoint_on else []
        return found + [next(filter(is_layer, head.modules())) for head in others]

    def _steps(self, module: nn.Module, *others: nn.Module) -> Steps:
        """What the codes of a layer's input stand for, which others take too."""
        low, high = self._range(self._names[module])
        sparse = [is_sparse(self._layer(each)) for each in (module, *others)]
        return Steps.of(low, high, SPARSE if any(sparse) else DENSE)

    def _range(self, name: str) -> tuple[float, float]:
        if name not in self._packed.ranges:
            raise EngineError(f"the calibration did not reach {name}")
        return self._packed.ranges[name]

    def _layer(self, module: nn.Module) -> PackedLayer:
        name = self._names[module]
        layer = self._packed.layers.get(name)
        kinds = (nn.Conv2d, Conv2d, nn.Linear, nn.ConvTranspose2d)
        if type(module) not in kinds or layer is None:
            raise EngineError(f"{name} is a {type(module).__name__}")
        if getattr(module, "norm", None) is not None and layer.norm is None:
            raise EngineError(f"{name} has a norm that depends on its input")
        if getattr(module, "groups", 1) != 1:
            raise EngineError(f"{name} has groups")
        return layer

    def _conv(self, module, source, target, relu=False) -> SparseConv2d:
        geometry = None if isinstance(module, nn.Linear) else module
        kind = SparseConv2d
        if isinstance(module, nn.ConvTranspose2d):
            kind = SparseDeconv2d
        try:
            return kind(self._layer(module), geometry, source, target, relu, self._maps)
        except ValueError as error:
            raise EngineError(f"{self._names[module]}: {error}") from error

    def _fpn(self, fpn: FPN) -> SparseFPN:
        expect(fpn, FPN)
        if fpn._fuse_type != "sum":
            raise EngineError("its FPN does not add its levels")
        sums = [self._steps(conv) for conv in fpn.output_convs]
        bottom_up = self._resnet(fpn)
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
        parts = (bottom_up, lateral, output, sums, top, fpn.in_features)
        return SparseFPN(*parts, self._features, shapes, fpn)

    def _top_block(self, fpn: FPN) -> SparseTopConvolutions | None:
        top = fpn.top_block
        if isinstance(top, LastLevelMaxPool):
            return None
        expect(top, LastLevelP6P7)
        inside = top.in_feature in fpn.bottom_up.output_shape()
        source = self._stage_output(fpn, top.in_feature) if inside else self._features
        p6 = self._conv(top.p6, source, self._features)
        p7 = self._conv(top.p7, self._features, self._features)
        return SparseTopConvolutions(p6, p7, top.in_feature)

    def _resnet(self, fpn: FPN) -> SparseResNet:
        resnet = expect(fpn.bottom_up, ResNet)
        stem = expect(resnet.stem, BasicStem)
        blocks = [block for stage in resnet.stages for block in stage]
        inputs = [self._block_input(fpn, place) for place in range(len(blocks))]
        outputs = [*inputs[1:], self._stage_output(fpn, resnet.stage_names[-1])]
        made = [
            self._block(block, source, target)
            for block, source, target in zip(blocks, inputs, outputs, strict=True)
        ]
        model = self._model
        most = max(
            float(((value - model.pixel_mean) / model.pixel_std).abs().max()) for value in (0, 255)
        )
        pixels = Steps.of(-most, most, _ADDED)
        conv = self._conv(stem.conv1, pixels, inputs[0], relu=True)
        places = iter(made)
        stages = {
            name: nn.ModuleList([next(places) for _ in stage])
            for name, stage in zip(resnet.stage_names, resnet.stages, strict=True)
        }
        kept = {*fpn.in_features, getattr(fpn.top_block, "in_feature", None)}
        return SparseResNet(conv, pixels, stages, kept, self._maps)

    def _takers(self, fpn: FPN, stage: str) -> list[nn.Module]:
        """Layers outside of the ResNet that take the output of a stage."""
        found = []
        if stage in fpn.in_features:
            found.append(fpn.lateral_convs[-1 - fpn.in_features.index(stage)])
        if getattr(fpn.top_block, "in_feature", None) == stage:
            found.append(fpn.top_block.p6)
        return found

    def _block_input(self, fpn: FPN, place: int) -> Steps:
        resnet = fpn.bottom_up
        ends, count = {}, 0
        for name, stage in zip(resnet.stage_names, resnet.stages, strict=True):
            count += len(stage)
            ends[count] = name
        block = [block for stage in resnet.stages for block in stage][place]
        shortcut = [] if block.shortcut is None else [block.shortcut]
        others = self._takers(fpn, ends[place]) if place in ends else []
        return self._steps(block.conv1, *shortcut, *others)

    def _stage_output(self, fpn: FPN, stage: str) -> Steps:
        """What the output of a stage stands for: whoever takes it was calibrated."""
        resnet = fpn.bottom_up
        place = resnet.stage_names.index(stage)
        if place + 1 < len(resnet.stages):
            return self._block_input(fpn, sum(len(each) for each in resnet.stages[: place + 1]))
        return self._steps(*self._takers(fpn, stage))

    def _block(self, block: nn.Module, source: Steps, target: Steps) -> SparseBlock:
        convs = self._path(block)
        targets = [*map(self._steps, convs[1:]), target]
        sources = [source, *targets[:-1]]
        made = [self._conv(*each, True) for each in zip(convs, sources, targets, strict=True)]
        if block.shortcut is None:
            return SparseBlock(made, None, source)
        added = Steps.of(*self._range(self._names[block.shortcut] + OUTPUT), _ADDED)
        return SparseBlock(made, self._conv(block.shortcut, source, added), added)

    def _path(self, block: nn.Module) -> list[nn.Module]:
        return main_path(block, self._names[block])

    def _rpn(self, rpn: nn.Module) -> None:
        head = rpn.rpn_head
        hidden = self._steps(head.objectness_logits, head.anchor_deltas)
        conv = head.conv if isinstance(head.conv, nn.Sequential) else [head.conv]
        rpn.rpn_head = SparseRPNHead(
            self._sequence(conv, hidden),
            self._conv(head.objectness_logits, hidden, None),
            self._conv(head.anchor_deltas, hidden, None),
        )

    def _roi_heads(self, heads: nn.Module) -> None:
        cascade = isinstance(heads, CascadeROIHeads)
        box_heads = list(heads.box_head) if cascade else [heads.box_head]
        predictors = list(heads.box_predictor) if cascade else [heads.box_predictor]
        flat = not box_heads[0].conv_norm_relus
        heads.box_pooler = SparsePooler(heads.box_pooler, self._features, flat, self._maps)
        made = [self._box_head(head) for head in box_heads]
        if cascade:
            heads.box_head = nn.ModuleList(made)
        else:
            heads.box_head = made[0]
        # The predictors are small, and what boxes and scores are made of: they stay in float.
        for predictor in predictors:
            for layer in (predictor.cls_score, predictor.bbox_pred):
                fill_layer(layer, self._packed.layers[self._names[layer]])
        if heads.mask_on:
            expect(heads.mask_head, MaskRCNNConvUpsampleHead)
            heads.mask_pooler = SparsePooler(heads.mask_pooler, self._features, False, self._maps)
            self._mask_head(heads.mask_head)
            self._model.__class__ = PastingRCNN
        if heads.keypoint_on:
            expect(heads.keypoint_head, KRCNNConvDeconvUpsampleHead)
            heads.keypoint_pooler = SparsePooler(
                heads.keypoint_pooler, self._features, False, self._maps
            )
            self._keypoint_head(heads.keypoint_head)
        # Detectron2 would hold the features while it pastes masks, when memory is at its peak.
        pooler = heads.box_pooler
        pooler = heads.mask_pooler if heads.mask_on else pooler
        pooler = heads.keypoint_pooler if heads.keypoint_on else pooler
        if pooler is not heads.box_pooler or not cascade:  # a cascade's boxes are pooled again
            pooler.register_forward_hook(self._free_levels)
        heads.register_forward_hook(self._free_features)

    @staticmethod
    def _free_levels(module, args, output) -> None:
        """A hook behind the pooler that is the last to take features."""
        for level in args[0]:
            level.free()

    def _free_features(self, module, args, output) -> None:
        """A hook behind the heads: of what no pooler takes, and where there were no boxes."""
        shapes = [feature.shape for feature in args[1].values()]
        for feature in args[1].values():
            feature.free()
        args[1].clear()
        if shapes != self._shapes:  # memory is held for pictures of a size that comes again
            self._maps.clear()
        self._shapes = shapes

    def _box_head(self, head: nn.Module) -> SparseBoxHead:
        expect(head, FastRCNNConvFCHead)
        if not head.fcs:
            raise EngineError("its box head has no linear layer")
        convs = None
        source = self._features
        if head.conv_norm_relus:
            target = self._steps(head.fcs[0])
            convs, source = self._sequence(head.conv_norm_relus, target), target
        layers = []
        for i, layer in enumerate(head.fcs):
            last = i + 1 == len(head.fcs)
            target = None if last else self._steps(head.fcs[i + 1])
            layers.append(self._conv(layer, source, target, True))
            source = target
        return SparseBoxHead(convs, SparseSequence(layers), head.output_shape, self._maps)

    def _mask_head(self, head: nn.Module) -> None:
        between, last = self._steps(head.deconv), self._steps(head.predictor)
        convs = head.conv_norm_relus
        layers = MaskLogits(
            self._sequence(convs, between),
            self._conv(head.deconv, between if convs else self._features, last, True),
            self._conv(head.predictor, last, None),
        )
        _replace_layers(head, layers)

    def _keypoint_head(self, head: nn.Module) -> None:
        # The last layer's kernels overlap; it is a predictor, and stays in float as others do.
        fill_layer(head.score_lowres, self._packed.layers[self._names[head.score_lowres]])
        convs = [module for module in head.children() if module is not head.score_lowres]
        layers = KeypointLogits(self._sequence(convs, None), head.score_lowres, head.up_scale)
        _replace_layers(head, layers)

    def _retinanet(self, model: nn.Module) -> None:
        head = expect(model.head, RetinaNetHead)
        top = model.backbone.top_block if isinstance(model.backbone, FPN) else None
        inside = (
            getattr(top, "in_feature", None) in expect(model.backbone, FPN).bottom_up.output_shape()
        )
        takers = [head.cls_subnet[0], head.bbox_subnet[0]]
        takers += [] if not isinstance(top, LastLevelP6P7) else [top.p7]
        takers += [] if inside or not isinstance(top, LastLevelP6P7) else [top.p6]
        self._features = self._steps(*takers)
        model.backbone = self._fpn(model.backbone)
        pairs = ((head.cls_subnet, head.cls_score), (head.bbox_subnet, head.bbox_pred))
        made = []
        for subnet, last in pairs:
            target = self._steps(last)
            made += [self._sequence(subnet, target), self._conv(last, target, None)]
        model.head = SparseRetinaNetHead(*made)

    def _sequence(self, modules: Iterable[nn.Module], target: Steps | None) -> SparseSequence:
        """Convolutions, each with its ReLU if any; the first of them takes the features.

        Args:
            target: what the last output is to stand for; None for float32.
        """
        found: list[tuple[nn.Module, bool]] = []
        for module in modules:
            if is_layer(module):
                activation = getattr(module, "activation", None)
                relu = is_relu(activation) and not isinstance(activation, nn.ReLU6)
                if activation is not None and not relu:
                    raise EngineError(f"{self._names[module]} has another end than a ReLU")
                found.append((module, relu))
            elif type(module) is nn.ReLU:
                found[-1] = (found[-1][0], True)
            elif not isinstance(module, nn.Identity):
                raise EngineError(f"{self._names[found[-1][0]]} has a norm behind it")
        layers, source = [], self._features
        for i, (module, relu) in enumerate(found):
            last = i + 1 == len(found)
            goal = target if last else self._steps(found[i + 1][0])
            layers.append(self._conv(module, source, goal, relu))
            source = goal
        return SparseSequence(layers)


def _replace_layers(head: nn.Module, layers: nn.Module) -> None:
    """Let a head of Detectron2's compute its logits by other layers, and drop its own."""
    for name, _ in list(head.named_children()):
        delattr(head, name)
    head.on_kernels = layers
    head.layers = layers.forward
