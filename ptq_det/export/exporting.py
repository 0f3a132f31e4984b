"""Exports a packed detector to ONNX, and compares what was exported with it."""

import os
from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime
import torch
from detectron2.structures import Instances
from torch import nn

from ..errors import InputError
from ..files import replacing
from ..inference.calibration import take_any_score
from ..packing.packed_model import PackedModel
from .decode import fill, metadata_of, read_graph, require_another
from .model import build_graph

__all__ = ["export_onnx"]

_SIZES = [(96, 128), (256, 200)]  # of pictures that are compared
_PIXELS = 0.01  # that boxes may differ by
_SCORE = 1e-3  # that scores and masks may differ by
_AGREE = 0.98  # of the detections at no threshold: where two scores are equal, one goes by chance
_ROUNDING = 0.5  # relative error that features on integers may have


def export_onnx(
    packed: str | os.PathLike,
    output: str | os.PathLike,
    int8: bool = False,
    size: tuple[int, int] | None = None,
    vnni: bool = False,
    weightless: bool = False,
    pictures: Iterable[np.ndarray] | None = None,
) -> None:
    """Write the ONNX model of a packed detector, after comparing the two.

    Args:
        packed: packed file.
        output: file to write; it appears when it has been compared.
        int8: compute on uint8 activations and int8 weights; the file has to be calibrated.
        size: height and width of the picture that the model takes; any without.
        vnni: whether the target multiplies uint8 by int8 without saturating; without, weights of
            layers that are not ternary have 7 bits.
        weightless: write the graph alone, which :func:`~.decode.decode` fills on a device.
        pictures: uint8 ``(height, width, 3)`` in the model's channel order, to compare on; noise
            without.

    Raises:
        FileNotFoundError, PackedFileError: as :func:`ptq_det.load_packed`.
        InputError: the model has a part that the export does not know, or the file no ranges, or
            the exported model disagrees; nothing is written then.
    """
    path = os.fspath(packed)
    require_another(output, path)
    model = PackedModel.read(path)
    options = dict(int8=int8, size=size, wide=vnni)
    graph = build_graph(model, **options)
    with replacing(output) as scratch:
        scratch.write_bytes(graph.SerializeToString())
        data, metadata = read_graph(scratch)
        complete = fill(data, metadata, path)
        onnx.checker.check_model(complete, full_check=True)
        shown, built = list(pictures or _noise(size)), model.build("cpu")
        # At no threshold any picture has as many detections as there may be.
        exact = build_graph(model, size=size, threshold=0.0).SerializeToString()
        _compare(built, _filled(exact, path), shown)
        if int8:
            rounded = build_graph(model, **options, with_features=True).SerializeToString()
            _compare_features(built, _filled(rounded, path), shown)
        if not weightless:
            scratch.write_bytes(complete)


def _filled(graph: bytes, path: str) -> bytes:
    return fill(graph, metadata_of(graph), path)


def _noise(size: tuple[int, int] | None) -> Iterable[np.ndarray]:
    """Pictures of coarse noise, which has edges at all scales."""
    rng = np.random.default_rng(0)
    for height, width in [size] if size else _SIZES:
        picture = np.zeros((height, width, 3))
        for grain in (64, 16, 4, 1):
            cells = rng.random((-(-height // grain), -(-width // grain), 3))
            grown = cells.repeat(grain, 0).repeat(grain, 1)[:height, :width]
            picture += grown * 64
        yield picture.astype(np.uint8)


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    except Exception as error:  # of the runtime, which has classes of its own for each
        raise InputError(f"the exported model does not run: {error}") from error


def _run(session: onnxruntime.InferenceSession, picture: np.ndarray) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"picture": picture}), strict=True))


def _sample(picture: np.ndarray) -> dict:
    image = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    return {"image": image, "height": picture.shape[0], "width": picture.shape[1]}


@torch.no_grad()
def _compare(model: nn.Module, exported: bytes, pictures: list[np.ndarray]) -> None:
    """Hold the detections of a float graph at no threshold against the model's."""
    session = _session(exported)
    take_any_score(model)
    for picture in pictures:
        sample = _sample(picture)
        if hasattr(model, "roi_heads"):
            (wanted,) = model.inference([sample], do_postprocess=False)
        else:
            wanted = _without_scaling(model, sample)
        _agree(_run(session, picture), wanted)


@torch.no_grad()
def _compare_features(model: nn.Module, exported: bytes, pictures: list[np.ndarray]) -> None:
    """Hold the features of a graph on integers against the float model's."""
    session = _session(exported)
    for picture in pictures:
        features = model.backbone(model.preprocess_image([_sample(picture)]).tensor)
        found = _run(session, picture)
        for name, wanted in features.items():
            error = np.linalg.norm(found[name] - wanted.numpy()) / np.linalg.norm(wanted.numpy())
            if not error <= _ROUNDING:
                raise InputError(
                    f"the exported model disagrees with the packed one: its features {name} are "
                    f"off by {error:.0%} in a picture of noise; calibrate on pictures like those "
                    "that it will see"
                )


def _without_scaling(model: nn.Module, sample: dict) -> Instances:
    """RetinaNet's detections; its boxes are clipped to the picture."""
    return model([sample])[0]["instances"]


def _agree(found: dict[str, np.ndarray], wanted: Instances) -> None:
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
    if share < _AGREE or abs(len(boxes) - len(own)) > (1 - _AGREE) * most:
        raise InputError(
            f"the exported model disagrees with the packed one: of {len(boxes)} detections in a "
            f"picture of noise it finds {share:.0%} ({len(own)} in all)"
        )
    if "masks" not in found:
        return
    pairs = np.argwhere(alike)
    masks = wanted.pred_masks.numpy()[pairs[:, 0], 0]
    error = np.abs(masks - found["masks"][pairs[:, 1]]).max(initial=0)
    if error > _SCORE:
        raise InputError(f"the exported model's masks differ from the packed one's by {error:.2g}")
