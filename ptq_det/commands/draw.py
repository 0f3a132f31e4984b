"""Predictions drawn into pictures."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.data.detection_utils import read_image
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.engine import DefaultPredictor
from detectron2.utils.visualizer import Visualizer
from torch import nn

from ..data.shapes import generate_shapes
from ..errors import InputError
from ..files import replacing
from ..inference import load_packed
from ..packing.packed_model import PackedModel, packed_config

__all__ = ["built_in_pictures", "draw_predictions", "predictor_of"]

_DRAWN_SIDE = 512  # pixels that the longer side of a drawing has at least


class _Predictor(DefaultPredictor):
    """Detectron2's predictor with a model that is there already."""

    def __init__(self, model: nn.Module, cfg: CfgNode):
        size = [cfg.INPUT.MIN_SIZE_TEST] * 2
        self.model, self.cfg, self.input_format = model, cfg, cfg.INPUT.FORMAT
        self.aug = ResizeShortestEdge(size, cfg.INPUT.MAX_SIZE_TEST)


def predictor_of(
    path: str, min_size: int | None = None, engine: str | None = None
) -> tuple[DefaultPredictor, Metadata]:
    """Detectron2's predictor for a packed model, and metadata with the names of its classes.

    Args:
        path: packed model.
        min_size: shorter side that pictures are scaled to, in pixels; without it, as in the
            model's config.
        engine: as :func:`ptq_det.load_packed` has it, with its errors.
    """
    cfg = packed_config(path)
    if min_size is not None:
        cfg.INPUT.MIN_SIZE_TEST = min_size
    metadata = Metadata(name=os.fspath(path))
    classes = PackedModel.read(path, weights=False).classes
    if classes:
        metadata.thing_classes = classes
    return _Predictor(load_packed(path, engine=engine), cfg), metadata


def draw_predictions(
    predictor: DefaultPredictor,
    metadata: Metadata,
    inputs: Iterable[str],
    output: str | os.PathLike,
    threshold: float,
) -> Iterator[tuple[Path, int]]:
    """Write a copy of each picture with what was found in it.

    Args:
        inputs: pictures.
        output: folder for the copies; they keep their names.
        threshold: least score of what is drawn.

    Yields:
        The file written and the number of objects drawn.

    Raises:
        InputError: a picture cannot be read.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    for name in inputs:
        try:
            image = read_image(name, format="BGR")
        except (OSError, ValueError) as error:
            raise InputError(f"picture {name!r} cannot be read: {error}") from error
        instances = predictor(image)["instances"].to("cpu")
        instances = instances[instances.scores >= threshold]
        scale = max(1, round(_DRAWN_SIDE / max(image.shape[:2])))
        drawn = Visualizer(image[:, :, ::-1], metadata, scale).draw_instance_predictions(instances)
        path = folder / f"{Path(name).stem}.png"
        with replacing(path) as scratch:
            data = np.ascontiguousarray(drawn.get_image()[:, :, ::-1])
            _, encoded = cv2.imencode(".png", data)
            scratch.write_bytes(encoded.tobytes())
        yield path, len(instances)


def built_in_pictures(output: str | os.PathLike, count: int = 6) -> list[str]:
    """Generate some pictures of the built-in data set below a folder; their paths."""
    folder = Path(output) / "pictures"
    generate_shapes(folder, "val", count)
    return sorted(map(str, (folder / "val").glob("*.png")))
