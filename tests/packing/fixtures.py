"""Writes the fixture of a format version: a packed file, and what is in it."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from detectron2.modeling import BACKBONE_REGISTRY, FPN
from detectron2.modeling.backbone.fpn import build_resnet_fpn_backbone
from torch import nn

from ptq_det import pack_model, ternarize
from ptq_det.inference import calibrate
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing.container import VERSION
from ptq_det.packing.packed_model import PackedModel
from ptq_det.ternary.activations import PACT
from ptq_det.ternary.norms import fold_norms
from tests.conftest import tiny_cfg
from tests.packing.conftest import _randomize_norms

PICTURE = ((np.arange(3 * 64 * 64) * 37) % 256).reshape(3, 64, 64)


class PositionedFPN(FPN):
    """Has beside its layers what packed files hold in other forms: a matrix, a vector, integers."""

    def forward(self, x):
        features = super().forward(x)
        p2 = features["p2"]
        features["p2"] = self.position_norm(
            p2 + self.position[..., self.rows[: p2.shape[2]], : p2.shape[3]]
        )
        return features


@BACKBONE_REGISTRY.register()
def build_positioned_fpn_backbone(cfg, input_shape):
    backbone = build_resnet_fpn_backbone(cfg, input_shape)
    backbone.__class__ = PositionedFPN
    channels = cfg.MODEL.FPN.OUT_CHANNELS
    backbone.position = nn.Parameter(0.1 * torch.randn(1, channels, 32, 32))
    backbone.position_norm = nn.GroupNorm(1, channels)
    backbone.register_buffer("rows", torch.arange(31, -1, -1))
    return backbone


def features_of(model) -> dict[str, list[float]]:
    """Mean, deviation and one value of each feature map of a picture of numbers."""
    picture = {"image": torch.from_numpy(PICTURE), "height": 64, "width": 64}
    with torch.no_grad():
        features = model.backbone(model.preprocess_image([picture]).tensor)
    return {n: [float(x.mean()), float(x.std()), float(x[0, 3, 0, 0])] for n, x in features.items()}


def digests_of(packed: PackedModel) -> dict[str, str]:
    """Of every weight, in float32."""
    return {
        name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest()[:16]
        for name, tensor in packed.state_dict().items()
    }


def write_fixture(folder: Path) -> Path:
    """Write ``version_N.safetensors`` and ``version_N.json`` of the present version; the former.

    A tiny Mask R-CNN with random weights that has what a file can: shifts, activations with bits of
    their own, ranges, and parameters of no layer. A file that is there is an error: fixtures are
    never made anew.
    """
    torch.manual_seed(int(VERSION))
    cfg = tiny_cfg("output")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("shapes_train",), ("shapes_val",)
    cfg.TERNARY.SCALE, cfg.TERNARY.ACTIVATION_BITS = "shift", 6
    cfg.MODEL.BACKBONE.NAME = "build_positioned_fpn_backbone"
    model = build_float_model(cfg)
    with torch.no_grad():
        model.backbone.position_norm.weight.uniform_(0.5, 1.5)
    _randomize_norms(model)
    ternarize(model, cfg)
    fold_norms(model.eval())
    for module in model.modules():
        if isinstance(module, PACT):
            with torch.no_grad():
                module.clip.uniform_(1.0, 3.0)
    path = folder / f"version_{VERSION}.safetensors"
    if path.exists():
        raise FileExistsError(f"{path} is there; a fixture is never made anew")
    pack_model(model, cfg, path)
    packed = PackedModel.read(path)
    picture = {"image": torch.from_numpy(PICTURE), "height": 64, "width": 64}
    packed.ranges = calibrate(packed.build("cpu"), [[picture]])
    packed.write(path)
    packed = PackedModel.read(path)
    expected = {
        "weights": digests_of(packed),
        "features": features_of(packed.build("cpu")),
        "classes": packed.classes,
        "ranges": len(packed.ranges),
    }
    path.with_suffix(".json").write_text(json.dumps(expected, indent=1) + "\n")
    return path
