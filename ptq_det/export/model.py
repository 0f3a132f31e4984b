"""A packed detector as an ONNX graph that lacks the packed weights."""

import json

import numpy as np
import onnx
from detectron2.config import CfgNode
from detectron2.modeling import GeneralizedRCNN, RetinaNet
from onnx import TensorProto
from torch import nn

from ..errors import InputError
from ..packing.packed_model import PackedModel
from .backbone import add_fpn
from .decode import FORMAT, digest_of
from .graph import Graph
from .layers import Computed, Layers, Value
from .plan import FloatPlan, IntegerPlan
from .rcnn import Detections, add_heads, add_proposals, first_layer
from .retinanet import add_retinanet

__all__ = ["build_graph"]


def build_graph(
    packed: PackedModel,
    int8: bool = False,
    size: tuple[int, int] | None = None,
    wide: bool = False,
    threshold: float | None = None,
    computed: list[Computed] | None = None,
) -> onnx.ModelProto:
    """The graph of a packed detector, without its weights.

    Args:
        packed: read from a file.
        int8: compute on uint8 and int8 where the calibration tells ranges.
        size: height and width of the picture that it takes; any without.
        wide: whether the target multiplies uint8 by int8 without saturating (VNNI).
        threshold: score above which a detection counts, in place of the model's own.
        computed: list that gets all layers; their values are outputs then, as are FPN's levels.

    Raises:
        InputError: the model has a part that the export does not know, or the file no ranges.
    """
    if not packed.architecture.is_detector:
        raise InputError(f"{packed.path} holds no detector but {packed.architecture}")
    if packed.architecture.is_given:
        raise InputError(
            f"{packed.path} is of a model that no YAML describes, which alone says what pictures "
            "an exported model takes"
        )
    if int8 and not packed.ranges:
        raise InputError(
            f"{packed.path} is not calibrated; tools/pack.py FILE --calibrate DATASET --output NEW"
        )
    cfg, model = packed.cfg(), packed.build("cpu")
    graph = Graph()
    plan = IntegerPlan(model, packed.ranges, wide) if int8 else FloatPlan()
    layers = Layers(graph, model, plan)
    picture, limit = _prepared(graph, model)
    match model:
        case GeneralizedRCNN() if type(model) is GeneralizedRCNN:
            features = add_fpn(layers, model.backbone, picture, first_layer(model))
            proposals = add_proposals(layers, model.proposal_generator, features, limit)
            found = add_heads(layers, model.roi_heads, features, proposals, limit, threshold)
        case RetinaNet() if type(model) is RetinaNet:
            features = add_fpn(layers, model.backbone, picture, model.head.cls_subnet[0])
            found = add_retinanet(layers, model, features, threshold)
        case _:
            raise InputError(
                f"the export knows R-CNN with FPN and RetinaNet; this is a {type(model).__name__}"
            )
    shape = list(size) if size else ["height", "width"]
    metadata = _metadata(packed, cfg, graph, found, int8, size)
    outputs = _outputs(found, cfg)
    if computed is not None:
        computed += layers.computed
        for value in (v for each in layers.computed for v in (each.given, each.result)):
            kind = TensorProto.FLOAT if value.represents is None else TensorProto.UINT8
            outputs[value.sized] = (value.sized, kind, None)
        outputs |= {n: (x.name, TensorProto.FLOAT, None) for n, x in features.items()}
    return graph.model([*shape, 3], outputs, metadata, _about(cfg))


def _prepared(graph: Graph, model: nn.Module) -> tuple[Value, str]:
    """The picture as the backbone gets it, and the limits of boxes in it."""
    values = graph.op("Transpose", graph.cast("picture"), perm=[2, 0, 1])
    mean, std = (getattr(model, name).numpy() for name in ("pixel_mean", "pixel_std"))
    values = graph.op("Sub", values, graph.constant(mean, np.float32))
    values = graph.op("Div", values, graph.constant(std, np.float32))
    values = graph.op("Unsqueeze", values, graph.constant([0]))
    sizes = graph.op("Slice", graph.shape("picture"), *map(graph.constant, ([0], [2], [0])))
    divisor = model.backbone.size_divisibility
    if divisor > 1:
        lacking = graph.op("Mod", graph.op("Neg", sizes), graph.constant([divisor]))
        pads = graph.op("Concat", graph.constant([0] * 6), lacking, axis=0)
        values = graph.op("Pad", values, pads, graph.number(0.0))
    flipped = graph.gather(sizes, graph.constant([1, 0, 1, 0]))
    return Value(values), graph.cast(flipped)


def _outputs(found: Detections, cfg: CfgNode) -> dict[str, tuple[str, int, list]]:
    float32 = TensorProto.FLOAT
    outputs = {
        "boxes": (found.boxes, float32, ["detections", 4]),
        "scores": (found.scores, float32, ["detections"]),
        "classes": (found.classes, TensorProto.INT64, ["detections"]),
    }
    if found.masks is not None:
        side = 2 * cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION
        outputs["masks"] = (found.masks, float32, ["detections", side, side])
    if found.heatmaps is not None:
        side = 4 * cfg.MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION
        count = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
        outputs["heatmaps"] = (found.heatmaps, float32, ["detections", count, side, side])
    return outputs


def _metadata(packed, cfg, graph, found, int8, size) -> dict[str, str]:
    return {
        "ptq_det": FORMAT,
        "classes": json.dumps(packed.classes, ensure_ascii=False),
        "input_format": cfg.INPUT.FORMAT,
        "min_size": str(cfg.INPUT.MIN_SIZE_TEST),
        "max_size": str(cfg.INPUT.MAX_SIZE_TEST),
        "size": json.dumps(size),
        "precision": "int8" if int8 else "float32",
        "packed_file": digest_of(packed.path),
        "weights": json.dumps([each.to_json() for each in graph.weights], separators=(",", ":")),
    }


def _about(cfg: CfgNode) -> str:
    return (
        f"picture: uint8 (height, width, 3), channels {cfg.INPUT.FORMAT}, values 0 to 255, scaled "
        f"so that the shorter side has {cfg.INPUT.MIN_SIZE_TEST} pixels and the longer one no more "
        f"than {cfg.INPUT.MAX_SIZE_TEST}; normalization is inside. boxes: x0, y0, x1, y1 in pixels "
        "of that picture. masks: probabilities over each box, to be pasted. heatmaps: of keypoints "
        "over each box"
    )
