"""Folders of pictures through a predictor: drawings, results and AP in COCO's format."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..errors import InputError
from ..files import replacing
from .predictor import OnnxPredictor, Prediction

__all__ = [
    "average_precision",
    "described",
    "draw",
    "find_pictures",
    "read_annotations",
    "results_of",
    "write_json",
]

_ENDS = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_COLORS = [
    (230, 25, 75), (60, 180, 75), (255, 200, 25), (67, 99, 216), (245, 130, 49), (145, 30, 180),
    (66, 212, 244), (240, 50, 230), (188, 246, 12), (0, 128, 128), (170, 110, 40), (128, 0, 0),
]  # fmt: skip
_OPAQUE = 110  # of 255, of a mask


def find_pictures(places: Iterable[str]) -> list[Path]:
    """Pictures that are named, and those in folders that are.

    Raises:
        FileNotFoundError: a place is not there.
        InputError: there are no pictures.
    """
    found = []
    for place in map(Path, places):
        if place.is_dir():
            found += sorted(
                path for path in place.iterdir() if path.suffix.lower() in _ENDS and path.is_file()
            )
        elif place.is_file():
            found.append(place)
        else:
            raise FileNotFoundError(f"{place}: no such picture or folder")
    if not found:
        raise InputError(f"no pictures there; endings that are known: {' '.join(sorted(_ENDS))}")
    return found


def draw(
    picture: Image.Image, prediction: Prediction, name_of: Callable[[int], str]
) -> Image.Image:
    """Boxes, masks, keypoints and names over a picture."""
    drawn = ImageOps.exif_transpose(picture).convert("RGB")
    for i, label in enumerate(prediction.classes.tolist()):
        color = _COLORS[label % len(_COLORS)]
        if prediction.masks is not None:
            shade = Image.fromarray(prediction.mask(i).astype(np.uint8) * _OPAQUE)
            drawn.paste(Image.new("RGB", drawn.size, color), mask=shade)
    pen = ImageDraw.Draw(drawn)
    font = ImageFont.load_default(size=max(10, min(drawn.size) // 40))
    for i, (box, label) in enumerate(
        zip(prediction.boxes.tolist(), prediction.classes.tolist(), strict=True)
    ):
        color = _COLORS[label % len(_COLORS)]
        pen.rectangle(box, outline=color, width=max(1, min(drawn.size) // 250))
        if prediction.keypoints is not None:
            for x, y, _ in prediction.keypoints[i].tolist():
                pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=color)
        text = f"{name_of(label)} {prediction.scores[i]:.0%}"
        at = (box[0] + 2, max(0, box[1] - font.size - 2))
        pen.rectangle(pen.textbbox(at, text, font), fill=color)
        pen.text(at, text, (255, 255, 255), font)
    return drawn


def read_annotations(path: str | os.PathLike, classes: list[str]) -> tuple[list[dict], list[int]]:
    """Pictures of COCO's annotations, and the id of the category of each class.

    Args:
        path: JSON file.
        classes: names of the model's classes; where it has none, categories are taken in the order
            of their ids, as Detectron2 does.

    Raises:
        OSError: the file cannot be read.
        InputError: it is no such file, or lacks a class.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        categories = {entry["name"]: entry["id"] for entry in content["categories"]}
        pictures = [{key: entry[key] for key in ("id", "file_name")} for entry in content["images"]]
        if not pictures or not content["annotations"]:
            raise ValueError("no pictures, or nothing annotated")
        places = [(entry["image_id"], entry["category_id"]) for entry in content["annotations"]]
        if not all(type(entry["file_name"]) is str for entry in pictures) or not places:
            raise ValueError("names of files that are no text")
        outside = [entry["file_name"] for entry in pictures if not _inside(entry["file_name"])]
        if outside:
            raise ValueError(f"{outside[0]} is not in the folder of pictures")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{os.fspath(path)}: no annotations in COCO's format ({error})") from error
    if not classes:
        return pictures, sorted(categories.values())
    missing = [name for name in classes if name not in categories]
    if missing:
        raise InputError(f"{os.fspath(path)} has no category {missing[0]!r}, a class of the model")
    return pictures, [categories[name] for name in classes]


def _inside(name: str) -> bool:
    """Whether a file's name leads to no place outside of the folder that it is looked for in."""
    path = PurePath(name)
    return not path.is_absolute() and ".." not in path.parts


def results_of(
    predictor: OnnxPredictor, pictures: list[dict], folder: str, categories: list[int]
) -> Iterator[list[dict]]:
    """Results in COCO's format, a list a picture.

    Raises:
        InputError: a picture cannot be read.
    """
    for entry in pictures:
        path = os.path.join(folder, entry["file_name"])
        try:
            with Image.open(path) as picture:
                found = predictor(picture)
        except InputError:
            raise
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{path}: it cannot be read ({error})") from error
        yield list(found.to_coco(entry["id"], categories))


def described(
    prediction: Prediction, path: str | os.PathLike, name_of: Callable[[int], str]
) -> list[dict]:
    """Results in COCO's format of a picture that no annotations number: by names."""
    entries = list(prediction.to_coco(0))
    for entry in entries:
        del entry["image_id"]
        entry |= {"file_name": os.fspath(path), "category": name_of(entry["category_id"])}
    return entries


def average_precision(path: str | os.PathLike, results: list[dict]) -> dict[str, list[float]]:
    """COCO's twelve figures, or ten of keypoints, by task, in percent; pycocotools prints them.

    Raises:
        InputError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise InputError("AP is found by pycocotools: pip install pycocotools") from error
    from ..coco_defaults import complete

    truth = COCO(os.fspath(path))
    complete(truth)
    tasks = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}
    figures = {}
    for task, key in tasks.items():
        if not any(key in result for result in results):
            continue
        # An area of its mask or box belongs to each task.
        own = [{k: v for k, v in r.items() if k == key or k not in tasks.values()} for r in results]
        evaluation = COCOeval(truth, truth.loadRes(own), task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        figures[task] = [100 * float(figure) for figure in evaluation.stats]
    return figures


def write_json(path: str | os.PathLike, content) -> None:
    """Write a file that appears when it is whole."""
    with replacing(path) as scratch:
        scratch.write_text(json.dumps(content))
