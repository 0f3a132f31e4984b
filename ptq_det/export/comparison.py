"""Holds an exported graph against the packed model that it is of.

A float graph has to find what the model finds. One on integers is not that close after so many
layers, so each of its layers is held against the model's own, on the same input.
"""

import numpy as np
import onnxruntime
import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ..errors import InputError
from ..inference.calibration import take_any_score
from .layers import Computed, Value

__all__ = ["compare_detections", "compare_layers", "noise", "require_runs"]

_SIZES = [(96, 128), (256, 200)]  # of pictures that are compared
_PIXELS = 0.01  # that boxes may differ by
_SCORE = 1e-3  # that scores and masks may differ by; heatmaps, of their largest
_AGREE = 0.98  # of the detections at no threshold: where two scores are equal, one goes by chance
_FEATURES = 0.5  # relative error that features on integers may have
_FLOAT, _INTEGER = 1e-3, 0.1  # relative error of a filter of a layer, of its values' size


def noise(size: tuple[int, int] | None = None) -> list[np.ndarray]:
    """Pictures of coarse noise, which has edges at all scales; uint8 ``(height, width, 3)``."""
    rng = np.random.default_rng(0)
    pictures = []
    for height, width in [size] if size else _SIZES:
        picture = np.zeros((height, width, 3))
        for grain in (64, 16, 4, 1):
            cells = rng.random((-(-height // grain), -(-width // grain), 3))
            grown = cells.repeat(grain, 0).repeat(grain, 1)[:height, :width]
            picture += grown * 64
        pictures.append(picture.astype(np.uint8))
    return pictures


def require_runs(exported: bytes, pictures: list[np.ndarray]) -> None:
    """Raise :class:`InputError` where a complete model does not run, or gives what is no number."""
    session = _session(exported)
    for picture in pictures:
        found = _run(session, picture)
        wrong = [name for name, value in found.items() if not np.isfinite(value).all()]
        if wrong:
            raise InputError(f"the exported model gives {wrong[0]} that are no numbers")
        if len({len(value) for value in found.values()}) > 1:
            raise InputError("the exported model gives no detection all that belongs to it")


@torch.no_grad()
def compare_detections(
    model: nn.Module, exported: bytes, pictures: list[np.ndarray], exactly: bool = False
) -> None:
    """Hold the detections of a float graph against the model's.

    Args:
        model: of the packed file; where not exactly, it gives detections of any score after.
        exported: the graph with its weights.
        pictures: uint8, in the model's channel order.
        exactly: whether no detection may be missing, which takes a threshold: at none, where the
            last of equal ones goes by chance, some may.

    Raises:
        InputError: they differ.
    """
    session = _session(exported)
    if not exactly:
        take_any_score(model)
    for picture in pictures:
        sample = _sample(picture)
        if hasattr(model, "roi_heads"):
            (wanted,) = model.inference([sample], do_postprocess=False)
        else:  # RetinaNet's, which would be scaled and clipped to the picture
            wanted = model([sample])[0]["instances"]
        _agree(_run(session, picture), wanted, 1.0 if exactly else _AGREE)


def _agree(found: dict[str, np.ndarray], wanted: Instances, least: float) -> None:
    boxes, scores = wanted.pred_boxes.tensor.numpy(), wanted.scores.numpy()
    labels = wanted.pred_classes.numpy()
    limits = np.array(wanted.image_size[::-1] * 2, np.float32)
    own = found["boxes"].clip(0, limits)
    solid = (own[:, 2:] > own[:, :2]).all(1)
    own, found = own[solid], {name: value[solid] for name, value in found.items()}
    if not len(boxes) and not len(own):
        return
    alike = labels[:, None] == found["classes"][None]
    alike &= np.abs(boxes[:, None] - own[None]).max(-1, initial=0) <= _PIXELS
    alike &= np.abs(scores[:, None] - found["scores"][None]) <= _SCORE
    share = alike.any(1).mean() if len(boxes) else 0.0
    most = max(len(boxes), len(own))
    if share < least or abs(len(boxes) - len(own)) > (1 - least) * most:
        raise InputError(
            f"the exported model disagrees with the packed one: of {len(boxes)} detections in a "
            f"picture of noise it finds {share:.0%} ({len(own)} in all)"
        )
    pairs = np.argwhere(alike)
    for name, title in (("masks", "pred_masks"), ("heatmaps", "pred_keypoint_heatmaps")):
        if name not in found or not len(pairs):
            continue
        own, given = found[name][pairs[:, 1]], wanted.get(title).numpy()[pairs[:, 0]]
        error = np.abs(given.reshape(own.shape) - own).max() / max(1.0, np.abs(given).max())
        if not error <= _SCORE:
            raise InputError(
                f"the exported model's {name} differ from the packed one's by {error:.2g}"
            )


@torch.no_grad()
def compare_layers(
    model: nn.Module,
    exported: bytes,
    computed: list[Computed],
    picture: np.ndarray,
    wide: bool = False,
) -> None:
    """Hold each layer of a graph on integers against the model's, and its features too.

    Args:
        model: of the packed file.
        exported: the graph with its weights, which gives ``computed`` and FPN's features.
        computed: its layers.
        picture: uint8, in the model's channel order.
        wide: run it in float32 between its roundings, as integers could saturate here.

    Raises:
        InputError: they differ.
    """
    found = _run(_session(exported, in_float=wide), picture)
    for each in computed:
        _compare_layer(model, each, found)
    features = model.backbone(model.preprocess_image([_sample(picture)]).tensor)
    for name, wanted in features.items():
        error = np.linalg.norm(found[name] - wanted.numpy()) / np.linalg.norm(wanted.numpy())
        if not error <= _FEATURES:
            raise InputError(
                f"the exported model disagrees with the packed one: its features {name} are off "
                f"by {error:.0%} in a picture of noise; calibrate on pictures like those that it "
                "will see"
            )


def _compare_layer(model: nn.Module, computed: Computed, found: dict[str, np.ndarray]) -> None:
    given, own = (_floats(value, found) for value in (computed.given, computed.result))
    if not len(given):
        return
    wanted = model.get_submodule(computed.layer)(given)
    if computed.relu:
        wanted = wanted.relu()
    step, share = 0.0, _FLOAT
    if computed.given.represents is not None:
        share = _INTEGER
    if (target := computed.result.represents) is not None:
        step = target.scale
        wanted = wanted.clamp(
            -target.zero_point * step, (target.largest - target.zero_point) * step
        )
    places = [axis for axis in range(wanted.dim()) if axis != 1]
    errors = (wanted - own).square().mean(places).sqrt()
    allowed = step + share * wanted.square().mean().sqrt()
    if not (errors <= allowed).all():
        raise InputError(
            f"the exported model disagrees with the packed one: its layer {computed.layer} is off "
            f"by {errors.max():.2g}, where {allowed:.2g} is what rounding explains"
        )


def _floats(value: Value, found: dict[str, np.ndarray]) -> Tensor:
    values = torch.from_numpy(found[value.sized])
    return values if value.represents is None else value.represents.dequantize(values)


def _session(model: bytes, in_float: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if in_float:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    except Exception as error:  # of the runtime, which has classes of its own for each
        raise InputError(f"the exported model does not run: {error}") from error


def _run(session: onnxruntime.InferenceSession, picture: np.ndarray) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    try:
        found = session.run(None, {"picture": picture})
    except Exception as error:  # as above
        raise InputError(f"the exported model does not run: {error}") from error
    return dict(zip(names, found, strict=True))


def _sample(picture: np.ndarray) -> dict:
    image = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    return {"image": image, "height": picture.shape[0], "width": picture.shape[1]}
