"""Forgeries: packed files changed so that they may do harm to who reads them."""

import json
import random
from collections.abc import Callable

import numpy as np
import yaml

from ...packing.container import Container
from .given import MODULE

__all__ = ["FORGERIES", "HARM", "MARK", "OF_MODULES", "forge"]

MARK = "forged_path"  # in the paths that forged configs name

_VALUES = (
    0, -1, 1, 3, 255, 1 << 16, 1 << 31, 1 << 62, 10**30, 1e308, float("nan"), None, True, "", "x",
    "ResNet", "../x", f"/{MARK}/x.pkl", f"http://{MARK}/x", [], [[]], {}, [1] * 50, "[" * 500,
    [[1] * 3000], [[1] * 60], [[[1] * 60] * 60], [1] * 25_000, -0.5, 4_194_304, "XYZ", "RRPN",
    "RotatedAnchorGenerator", "evil.PKL", "example.org",
)  # fmt: skip
HARM = {  # values of single keys that would stall, fill or end what builds or runs the model
    "MODEL.ANCHOR_GENERATOR.SIZES": ([[1] * 3000], [[1] * 60], [1] * 60, [[1] * 9] * 900, [0]),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": ([[1] * 3000], [[1] * 60], [1] * 60, [[1e-300]]),
    "MODEL.ANCHOR_GENERATOR.ANGLES": ([[1] * 300], [1] * 60),
    "MODEL.ANCHOR_GENERATOR.NAME": ("RotatedAnchorGenerator",),
    "MODEL.PROPOSAL_GENERATOR.NAME": ("RRPN", "PrecomputedProposals"),
    "MODEL.ROI_HEADS.NAME": ("RROIHeads", "CascadeROIHeads", "Res5ROIHeads"),
    "MODEL.META_ARCHITECTURE": ("RetinaNet", "PanopticFPN", "SemanticSegmentor", "ProposalNetwork"),
    "MODEL.RPN.IN_FEATURES": (["p2"] * 60, ["p2", "p2"], ["p6", "p2"]),
    "MODEL.RPN.CONV_DIMS": ([1] * 3000, [-1] * 60),
    "MODEL.RPN.BBOX_REG_WEIGHTS": ([1, 1], [1] * 5, [0] * 4),
    "MODEL.RPN.IOU_THRESHOLDS": ([0.1] * 3000, [7, 9]),
    "MODEL.RPN.PRE_NMS_TOPK_TEST": (-1, 0, 2.5, 1 << 22),
    "MODEL.RPN.POST_NMS_TOPK_TEST": (-1, 0, 2.5, 1 << 22),
    "MODEL.RPN.NMS_THRESH": (-1, 7, float("nan")),
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": (-1, 7, float("nan"), float("inf")),
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": (0, 1 << 10, 7.5),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": (-9, 1 << 20),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("ROIAlignRotated", "ROIPool"),
    "MODEL.ROI_BOX_HEAD.NUM_FC": (-1, 100, 1 << 20),
    "MODEL.ROI_BOX_HEAD.NUM_CONV": (-1, 100, 1 << 20),
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": ([0.5] * 3000, [9]),
    "MODEL.ROI_MASK_HEAD.NUM_CONV": (-1, 100, 1 << 20),
    "MODEL.RESNETS.NUM_GROUPS": (0, 64, 1 << 20),
    "MODEL.RESNETS.DEPTH": (-1, 18, 152, 1 << 20),
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": (0, 32, 1 << 20),
    "MODEL.PIXEL_MEAN": ([], [1.0], [1.0] * 5000, ["a"] * 3),
    "MODEL.PIXEL_STD": ([], [1.0], [0.0] * 3, [-1.0] * 3),
    "INPUT.FORMAT": ("XYZ", "P", "bgr", ""),
    "INPUT.MASK_FORMAT": ("rle", ""),
    "INPUT.MIN_SIZE_TEST": (-5, 1 << 14, 1 << 22, 0.5),
    "INPUT.MAX_SIZE_TEST": (-5, 0, 1 << 17, 1 << 22),
    "TEST.DETECTIONS_PER_IMAGE": (-7, 0, 2.5, 1 << 22),
}  # fmt: skip


def forge(content: Container, seed: int) -> tuple[str, Container]:
    """A kind of forgery and a container changed by it."""
    rng = random.Random(seed)
    copy = Container(dict(content.tensors), dict(content.metadata))
    is_module = content.metadata["architecture"] == MODULE
    kinds = FORGERIES | (OF_MODULES if is_module else {})
    name = rng.choice(list(kinds))
    for _ in range(rng.choice((1, 1, 2, 5))):
        kinds[name](copy, rng)
    return name, copy


def _change_json(key: str) -> Callable:
    def change(content: Container, rng: random.Random) -> None:
        value = yaml.safe_load(content.metadata[key])  # JSON is YAML; so are old configs
        content.metadata[key] = json.dumps(_changed(value, rng))

    return change


def _changed(value, rng: random.Random):
    """A JSON value with one part of it replaced, removed or added."""
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key = rng.choice(list(value))
        action = rng.random()
        if action < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if action < 0.2:
            return {**value, rng.choice(list(value)) + "x": rng.choice(_VALUES)}
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        i = rng.randrange(len(value))
        return [*value[:i], _changed(value[i], rng), *value[i + 1 :]]
    if type(value) is int and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 7, 1 << 20))
    return rng.choice(_VALUES)


def _harm(content: Container, rng: random.Random) -> None:
    config = yaml.safe_load(content.metadata["config"])
    if not isinstance(config, dict):
        return
    for name in rng.sample(list(HARM), rng.choice((1, 1, 2, 3))):
        *nodes, key = name.split(".")
        node = config
        for each in nodes:
            node = node.setdefault(each, {})
        node[key] = rng.choice(HARM[name])
    content.metadata["config"] = json.dumps(config)


def _json_config(content: Container, rng: random.Random) -> None:
    depth, width = rng.choice((3, 14, 15, 16, 17, 900, 40_000)), rng.choice((1, 5_000, 30_000))
    inner = ",".join("1" * width)
    key = rng.choice(('"X"', '"PIXEL_MEAN"', '"RPN"', '"MODEL"'))
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    nested = opening * depth + (inner if opening == "[" else "1") + closing * depth
    content.metadata["config"] = '{"MODEL":{' + key + ":" + nested + "}}"


def _class_list(content: Container, rng: random.Random) -> None:
    names = json.loads(content.metadata["classes"])
    if not isinstance(names, list):
        return
    new = (names[:1], names[:-1], [*names, "x"], names[:1] * 900, ["\ud83d"], [""] * len(names))
    content.metadata["classes"] = json.dumps(rng.choice(new))


def _shapes(content: Container, rng: random.Random) -> None:
    layers = json.loads(content.metadata["layers"])
    layer = layers[rng.choice(list(layers))]
    shape = layer.get("shape")
    if isinstance(shape, list) and shape:
        shape[rng.randrange(len(shape))] = rng.choice((1, 2, 64, 1 << 15, 1 << 30))
    content.metadata["layers"] = json.dumps(layers)


def _parameters(content: Container, rng: random.Random) -> None:
    """Fields of matrices that belong to no layer, and layers that are said to be such."""
    layers = json.loads(content.metadata["layers"])
    if not isinstance(layers, dict) or not layers:
        return
    name = rng.choice([n for n, x in layers.items() if "parameter" in x] or list(layers))
    fields = layers[rng.choice((name, name, rng.choice(list(layers))))]
    size = rng.choice((1, 64, 1 << 15, 1 << 29))
    shapes = ([], [size], [size] * 2, [1] * 9, [1, 1, size], [-1, size], [True, size], "x")
    changed = (
        {"shape": rng.choice(shapes)},
        {"parameter": rng.choice((True, False, None, 1))},
        {"kind": rng.choice(("float16", "ternary", "", 8))},
        {rng.choice(("groups", "norm", "offset", "clip")): rng.choice(_VALUES)},
    )
    fields |= rng.choice(changed)
    if rng.random() < 0.3:
        fields.pop(rng.choice(list(fields)))
    if rng.random() < 0.2:
        layers[rng.choice(("steps", "mask", "norm.weight", ""))] = fields
    content.metadata["layers"] = json.dumps(layers)


def _calls(content: Container, rng: random.Random) -> None:
    """Names of what a lazy config calls."""
    names = ("os.system", f"{MARK}.Model", "builtins.eval", "../x", "a" * 300, "a.b()", 3, None, [])
    node = {rng.choice(("_target_", "_partial_")): rng.choice(names), "a": rng.choice(_VALUES)}
    for _ in range(rng.choice((0, 1, 20))):
        node = {"_target_": "torch.nn.Sequential", "_args_": [node]}
    content.metadata["config"] = json.dumps(node)


def _yaml_config(content: Container, rng: random.Random) -> None:
    depth, width = rng.randrange(1, 12), rng.randrange(1, 12)
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, depth)]
    lines += ["MODEL: {MASK_ON: true}", "b: " + "[" * depth * 20]
    content.metadata["config"] = "\n".join(rng.sample(lines, len(lines)))


def _bytes_of_tensor(content: Container, rng: random.Random) -> None:
    name = rng.choice(list(content.tensors))
    tensor = content.tensors[name].copy()
    if tensor.size:
        raw = tensor.reshape(-1).view(np.uint8)
        start = 0 if rng.random() < 0.5 else rng.randrange(len(raw))
        for i in range(start, min(len(raw), start + rng.choice((1, 3, 20)))):
            raw[i] = rng.randrange(256)
    content.tensors[name] = tensor


def _form_of_tensor(content: Container, rng: random.Random) -> None:
    name = rng.choice(list(content.tensors))
    tensor = content.tensors[name]
    content.tensors[name] = rng.choice(
        (tensor[:1], tensor[:0], tensor.astype(np.float64), np.tile(tensor, 2), tensor.reshape(-1))
    )


def _names_of_tensors(content: Container, rng: random.Random) -> None:
    name = rng.choice(list(content.tensors))
    content.tensors[rng.choice((f"{name}x", "", "x.codes", name))] = content.tensors.pop(name)


def _texts(content: Container, rng: random.Random) -> None:
    key = rng.choice(list(content.metadata))
    text = content.metadata[key]
    start = rng.randrange(len(text) + 1)
    new = rng.choice(("", "[", "{", '"', "\\u0000", "9" * 5000, "[" * 5000, f"/{MARK}"))
    content.metadata[key] = text[:start] + new + text[start + rng.randrange(20) :]


FORGERIES: dict[str, Callable[[Container, random.Random], None]] = {
    "config": _change_json("config"),
    "config in YAML": _yaml_config,
    "config in JSON": _json_config,
    "harmful values": _harm,
    "number of classes": _class_list,
    "layers": _change_json("layers"),
    "shapes": _shapes,
    "architecture": _change_json("architecture"),
    "classes": _change_json("classes"),
    "ranges": _change_json("ranges"),
    "texts": _texts,
    "bytes of a tensor": _bytes_of_tensor,
    "form of a tensor": _form_of_tensor,
    "names of tensors": _names_of_tensors,
}

OF_MODULES: dict[str, Callable[[Container, random.Random], None]] = {
    "parameters": _parameters,
    "calls": _calls,
}
