"""Predictions drawn into pictures that are files."""

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.data.detection_utils import read_image
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.engine import DefaultPredictor
from torch import nn

from ..data.picture_check import check_pictures
from ..data.shapes import generate_shapes
from ..errors import InputError
from ..files import replacing
from ..inference import load_packed
from ..packing.packed_model import PackedModel, packed_config
from .visualize import Found, draw_picture, metadata_of, refuse_undrawable, set_threshold

__all__ = ["Drawing", "built_in_pictures", "draw_predictions", "free_path", "predictor_of"]

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

    Raises:
        InputError: the model needs more than a picture.
    """
    cfg = packed_config(path)
    refuse_undrawable(cfg, path)
    if min_size is not None:
        cfg.INPUT.MIN_SIZE_TEST = min_size
    classes = PackedModel.read(path, weights=False).classes
    metadata = metadata_of(os.fspath(path), cfg, classes)
    return _Predictor(load_packed(path, engine=engine), cfg), metadata


@dataclass(frozen=True)
class Drawing:
    """What became of a picture.

    Attributes:
        source: the picture.
        path: file written, or None where the picture could not be read.
        found: what is drawn.
        trouble: why it could not be read, or empty.
    """

    source: str
    path: Path | None
    found: Found | None = None
    trouble: str = ""


def draw_predictions(
    predictor: DefaultPredictor,
    metadata: Metadata,
    inputs: Iterable[str],
    output: str | os.PathLike,
    threshold: float,
) -> Iterator[Drawing]:
    """Write a copy of each picture with what was found in it.

    No file is written over, be it a picture, a copy or another run's: where a name is taken, the
    copy gets a number. A picture that cannot be read, or would be read wrongly (of 16 bits), is
    passed over, with the reason.

    Args:
        inputs: pictures.
        output: folder for the copies; they keep their names, as far as these are free.
        threshold: least score of the objects or proposals that are drawn.
    """
    set_threshold(predictor.model, threshold)
    inputs, folder = list(inputs), Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    taken = {Path(name).resolve() for name in inputs}
    for name in inputs:
        image, trouble = _read(name)
        if image is None:
            yield Drawing(name, None, trouble=trouble)
            continue
        try:
            found = Found.of(predictor(image), threshold)
        except InputError:
            raise
        except (OSError, ValueError) as error:  # too thin to be scaled
            yield Drawing(name, None, trouble=str(error))
            continue
        scale = max(1, round(_DRAWN_SIDE / max(image.shape[:2])))
        drawn = draw_picture(image, found, metadata, scale)
        path = free_path(folder, Path(name).stem, taken)
        with replacing(path) as scratch:
            _, encoded = cv2.imencode(".png", drawn)
            scratch.write_bytes(encoded.tobytes())
        yield Drawing(name, path, found)


def _read(name: str) -> tuple[np.ndarray | None, str]:
    """A picture's pixels, BGR, or why there are none, by the rule of a data set's pictures."""
    for trouble in check_pictures([{"file_name": name}]):
        return None, trouble.removeprefix(f"{name}: ")
    try:
        return read_image(name, format="BGR"), ""
    except Exception as error:  # decoders end in whatever they like
        return None, f"it cannot be read ({error})"


def free_path(folder: Path, stem: str, taken: set[Path], ending: str = ".png") -> Path:
    """A path that is none of those taken, which it joins, and where no file is."""
    for number in itertools.count(1):
        path = folder / (f"{stem}{ending}" if number == 1 else f"{stem}_{number}{ending}")
        if path.resolve() not in taken and not os.path.lexists(path):
            taken.add(path.resolve())
            return path


def built_in_pictures(output: str | os.PathLike, count: int = 6) -> list[str]:
    """Generate some pictures of the built-in data set below a folder; their paths.

    They get a folder of their own, unless one of an earlier run is there.
    """
    for number in itertools.count(1):
        folder = Path(output) / ("pictures" if number == 1 else f"pictures_{number}")
        if not os.path.lexists(folder):
            generate_shapes(folder, "val", count)
        names = _generated(folder)
        if len(names) == count:
            return names


def _generated(folder: Path) -> list[str]:
    """Pictures that :func:`generate_shapes` has written to a folder, if they are all there."""
    try:
        content = json.loads((folder / "annotations/val.json").read_text())
        ours = content["info"]["description"].startswith("ptq_det shapes")
        names = [folder / "val" / image["file_name"] for image in content["images"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
    return [str(name) for name in names] if ours and all(map(Path.is_file, names)) else []
