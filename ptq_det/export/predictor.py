"""Runs an exported detector by ONNX Runtime: NumPy, Pillow and onnxruntime, no PyTorch."""

import ctypes
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import InputError
from ..files import replacing
from ..packing.container import is_packed
from .decode import FORMAT, decode, digest_of
from .pasting import encode_rle, keypoints_of, paste_mask

__all__ = ["OnnxPredictor", "Prediction", "decoded", "give_back_memory", "graph_beside"]

_MMAP_THRESHOLD = -3  # of glibc's mallopt

_LONGEST = 1 << 16  # pixels of a side that a model may ask for


@dataclass
class Prediction:
    """What is found in a picture, in its own pixels, by falling score.

    Attributes:
        height, width: of the picture.
        boxes: float32 ``(D, 4)``, x0, y0, x1, y1.
        scores: float32 ``(D,)``.
        classes: int64 ``(D,)``.
        masks: probabilities over each box ``(D, M, M)``, or None.
        keypoints: float32 ``(D, K, 3)``, x, y and score, or None.
    """

    height: int
    width: int
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    masks: np.ndarray | None = None
    keypoints: np.ndarray | None = None

    def mask(self, place: int) -> np.ndarray:
        """Boolean ``(height, width)``, of one detection."""
        return paste_mask(self.masks[place], self.boxes[place], self.height, self.width)

    def above(self, score: float) -> "Prediction":
        """Those of at least this score."""
        return self._of(self.scores >= score)

    def _of(self, chosen: np.ndarray) -> "Prediction":
        parts = (self.boxes, self.scores, self.classes, self.masks, self.keypoints)
        return Prediction(
            self.height, self.width, *(None if part is None else part[chosen] for part in parts)
        )

    def to_coco(self, image_id: int, categories: list[int] | None = None) -> Iterator[dict]:
        """Results in COCO's format.

        Args:
            image_id: of the picture.
            categories: id of each class; its number without.
        """
        for i, (box, score, label) in enumerate(
            zip(self.boxes.tolist(), self.scores.tolist(), self.classes.tolist(), strict=True)
        ):
            x0, y0, x1, y1 = box
            entry = {
                "image_id": image_id,
                "category_id": categories[label] if categories else label,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": score,
            }
            if self.masks is not None:
                entry["segmentation"] = encode_rle(self.mask(i))
            if self.keypoints is not None:
                points = self.keypoints[i].copy()
                points[:, :2] -= 0.5  # COCO's keypoints are pixels, not places in the plane
                entry["keypoints"] = points.ravel().tolist()
            yield entry


def give_back_memory() -> None:
    """Let this process give freed tensors back to the system, where its C library is glibc.

    That keeps blocks below 32 MiB otherwise, which is a third of the peak of a large picture.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, 1 << 20)


class OnnxPredictor:
    """A detector that was exported by this package.

    Args:
        model: file that ``tools/export_onnx.py`` or :func:`~.decode.decode` wrote.
        threads: of ONNX Runtime; its own choice without.
        providers: of ONNX Runtime, the CPU without.
        min_size: shorter side that pictures are scaled to, in place of the model's own.

    Attributes:
        classes: names, or numbers where the file has none.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is no model of this export.
    """

    def __init__(
        self,
        model: str | os.PathLike,
        threads: int | None = None,
        providers: list[str] | None = None,
        min_size: int | None = None,
    ):
        import onnxruntime  # here, so that decoding does without

        if not os.path.isfile(model):
            raise FileNotFoundError(f"{os.fspath(model)}: no such file")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # it keeps the largest picture's memory, twice over
        if threads:
            options.intra_op_num_threads = threads
        providers = providers or ["CPUExecutionProvider"]
        try:
            self._session = onnxruntime.InferenceSession(os.fspath(model), options, providers)
            metadata = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # of the runtime, which has classes of its own for each
            raise InputError(f"{os.fspath(model)}: no ONNX model that runs ({error})") from error
        if metadata.get("ptq_det") != FORMAT:
            raise InputError(f"{os.fspath(model)}: not exported by tools/export_onnx.py")
        self._names = [output.name for output in self._session.get_outputs()]
        self._model = os.fspath(model)
        try:
            self._read(metadata, min_size)
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{self._model}: its metadata make no sense ({error})") from error

    def _read(self, metadata: dict[str, str], min_size: int | None) -> None:
        self._bgr = metadata["input_format"] == "BGR"
        self._shorter = min_size or int(metadata["min_size"])
        self._longer = max(int(metadata["max_size"]), self._shorter)
        self._fixed, self.classes = json.loads(metadata["size"]), json.loads(metadata["classes"])
        sizes = [self._shorter, *(self._fixed or [])]
        if not all(type(size) is int and 0 < size <= _LONGEST for size in sizes):
            raise ValueError(f"sizes {sizes}")
        if self._fixed and len(self._fixed) != 2:
            raise ValueError(f"{len(self._fixed)} sizes")
        if not isinstance(self.classes, list) or not all(type(x) is str for x in self.classes):
            raise ValueError("classes are no names")
        if min_size and self._fixed:
            raise InputError(
                f"{self._model} takes pictures of {self._fixed} alone, at no other size"
            )

    def name_of(self, label: int) -> str:
        """Of a class."""
        return self.classes[label] if label < len(self.classes) else str(label)

    def __call__(self, picture: Image.Image) -> Prediction:
        """What is found in a picture, which EXIF may turn."""
        if picture.mode in ("F", "I") or picture.mode.startswith("I;"):
            raise ValueError("more than 8 bits a colour; save it with 8")
        picture = ImageOps.exif_transpose(picture).convert("RGB")
        width, height = picture.size
        scaled = np.asarray(picture.resize(self._scaled(width, height), Image.Resampling.BILINEAR))
        inside = scaled.shape[:2]
        if self._bgr:
            scaled = scaled[:, :, ::-1]
        if self._fixed:
            room = [(0, whole - side) for whole, side in zip(self._fixed, inside, strict=True)]
            scaled = np.pad(scaled, [*room, (0, 0)], mode="edge")
        try:
            found = self._session.run(None, {"picture": np.ascontiguousarray(scaled)})
        except Exception as error:  # of the runtime, which has classes of its own for each
            raise InputError(f"{self._model}: it does not run ({error})") from error
        return _placed(dict(zip(self._names, found, strict=True)), inside, height, width)

    def _scaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that a picture is scaled to, as Detectron2's ``ResizeShortestEdge``."""
        if self._fixed:
            scale = min(self._fixed[0] / height, self._fixed[1] / width)
            return max(1, int(width * scale)), max(1, int(height * scale))
        scale = self._shorter / min(height, width)
        if scale * max(height, width) > self._longer:
            scale = self._longer / max(height, width)
        return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))


def _placed(found: dict, inside: tuple[int, int], height: int, width: int) -> Prediction:
    """Detections in the picture that was scaled, as Detectron2's ``detector_postprocess``."""
    factors = np.array([width / inside[1], height / inside[0]] * 2, np.float32)
    limits = np.array([width, height] * 2, np.float32)
    boxes = (found["boxes"] * factors).clip(0, limits)
    prediction = Prediction(height, width, boxes, found["scores"], found["classes"])
    prediction.masks = found.get("masks")
    if "heatmaps" in found:
        prediction.keypoints = keypoints_of(found["heatmaps"], found["boxes"])
        prediction.keypoints[:, :, :2] *= factors[:2]
    solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return prediction if solid.all() else prediction._of(solid)


def graph_beside(packed: str | os.PathLike) -> Path:
    """Where the graph of a packed file is looked for: beside it, ``NAME.graph.onnx``."""
    return Path(packed).with_suffix(".graph.onnx")


def decoded(
    model: str | os.PathLike,
    graph: str | os.PathLike | None = None,
    cache: str | os.PathLike | None = None,
    told=lambda count: None,
) -> Path:
    """The ONNX model of a packed file, decoded once into a cache; an ONNX model is returned as is.

    Args:
        model: packed file, or ONNX model.
        graph: the packed file's graph without weights; by default beside it.
        cache: folder; by default ``ptq_det`` in the user's cache folder.
        told: how many layers are decoded.

    Raises:
        FileNotFoundError, InputError: as :func:`~.decode.decode`.
    """
    if not os.path.isfile(model):
        raise FileNotFoundError(f"{os.fspath(model)}: no such file")
    if not is_packed(model):
        return Path(model)
    graph = Path(graph or graph_beside(model))
    if not graph.is_file():
        raise FileNotFoundError(
            f"{graph}: no such file; it comes with the packed file "
            f"(tools/export_onnx.py {os.fspath(model)} {graph} --weightless)"
        )
    home = os.getenv("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(cache or Path(home) / "ptq_det")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}, where decoded models are kept, cannot be made ({error}); set "
            "XDG_CACHE_HOME to a folder that can"
        ) from error
    target = folder / f"{digest_of(model)[:16]}-{digest_of(graph)[:16]}.onnx"
    digest = target.with_suffix(".sha256")
    whole = target.is_file() and digest.is_file() and digest.read_text() == digest_of(target)
    if not whole:  # or was cut or changed since
        with replacing(target) as scratch:
            decode(model, graph, scratch, told)
        with replacing(digest) as scratch:
            scratch.write_text(digest_of(target))
    return target
