"""How sure a difference in AP is: intervals from drawing the pictures anew."""

import contextlib
import copy
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate
from tqdm import tqdm

from ...coco_defaults import complete
from ...data.coco_check import read_coco
from ...errors import InputError
from ...training.data_checks import check_datasets

__all__ = ["ClassMatches", "average_precision", "benchmark_difference", "match_detections"]

_TASKS = {"bbox": "box", "segm": "mask"}


@dataclass(frozen=True)
class ClassMatches:
    """What COCO's matching says of one class's detections, highest score first.

    Attributes:
        picture: index of the picture of each detection, shape (detections,).
        matched: whether an object was found, by IoU threshold, shape (thresholds, detections).
        ignored: whether the detection counts for nothing (on a crowd), of the same shape.
        objects: how many objects each picture has, shape (pictures,).
    """

    picture: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray


def benchmark_difference(
    dataset: str, predictions: list[str], baselines: list[str], samples: int
) -> dict:
    """Compare predictions with a baseline's on the same pictures; print a table.

    Pictures are drawn anew with replacement, the same ones for both sides (paired bootstrap); the
    interval holds 95 % of the differences in AP. It says what other pictures may change, not what
    other seeds may: give a file a seed for that, whose mean then has a row of its own.

    Args:
        dataset: registered data set in COCO format, on which all predictions were made.
        predictions: ``coco_instances_results.json`` files that Detectron2's evaluator wrote.
        baselines: as many, the first for the first of ``predictions``, and so on.
        samples: how often pictures are drawn.

    Returns:
        By task (``bbox``, ``segm``), a list with AP, baseline's AP, difference and interval of
        each pair, in points, and last those of the mean, if there are several.

    Raises:
        InputError: the data set or a file cannot be used, or the lists differ in length.
    """
    if len(predictions) != len(baselines):
        raise InputError(
            f"{len(predictions)} predictions and {len(baselines)} baselines; give as many of both"
        )
    check_datasets([dataset])
    annotations = MetadataCatalog.get(dataset).get("json_file")
    if not annotations:
        raise InputError(f"data set {dataset!r} has no annotations in COCO format (json_file)")
    truth = _annotations(annotations)
    pairs = [(_read(ours), _read(base)) for ours, base in zip(predictions, baselines, strict=True)]
    pictures = len(truth.getImgIds())
    rng = np.random.default_rng(0)
    draws = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=samples)
    draws = np.vstack([np.ones(pictures, dtype=draws.dtype), draws])  # first the data set itself

    result, rows = {}, []
    with_masks = all("segmentation" in p for pair in pairs for side in pair for p in side)
    for task in ("bbox", "segm") if with_masks else ("bbox",):
        ap = np.empty((len(pairs), 2, len(draws)))  # pair, side, draw
        for pair, side in tqdm(list(np.ndindex(ap.shape[:2])), desc=f"drawing, {_TASKS[task]} AP"):
            classes = match_detections(truth, pairs[pair][side], task)
            ap[pair, side] = [100 * average_precision(classes, counts) for counts in draws]
        means = [ap.mean(axis=0)] if len(pairs) > 1 else []
        result[task] = [_summary(ours, base) for ours, base in [*ap, *means]]
        names = [*range(1, len(pairs) + 1), *["mean"] * len(means)]
        for name, row in zip(names, result[task], strict=True):
            low, high = row["interval"]
            text = f"{low:+.1f} to {high:+.1f}"
            rows.append([_TASKS[task], name, row["ap"], row["baseline"], row["difference"], text])
    print(f"\n{dataset}: {pictures} pictures, drawn {samples} times")
    headers = ["AP", "pair", "predictions", "baseline", "difference", "95 % of draws"]
    print(tabulate(rows, headers, floatfmt=("", "", ".1f", ".1f", "+.1f"), tablefmt="github"))
    return result


def match_detections(truth: COCO, predictions: list[dict], task: str) -> list[ClassMatches]:
    """Match detections to objects as COCO's evaluation does, for every class of the data set.

    Args:
        truth: the annotations.
        predictions: detections in COCO's format of results.
        task: ``bbox`` or ``segm``.

    Raises:
        InputError: predictions are of pictures that the data set does not have.
    """
    unknown = {p["image_id"] for p in predictions} - set(truth.getImgIds())
    if unknown:
        raise InputError(
            f"predictions of picture {min(unknown)!r}, which the data set does not have; "
            "name the data set that they were made on"
        )
    predictions = copy.deepcopy(predictions)  # loadRes writes to them
    if task == "segm":
        for prediction in predictions:
            prediction.pop("bbox", None)  # else areas were those of boxes
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(predictions), task)
        params = evaluation.params
        params.areaRng, params.areaRngLbl, params.maxDets = [[0, 1e10]], ["all"], [100]
        evaluation.evaluate()
    pictures = len(params.imgIds)
    classes = []
    for first in range(0, len(evaluation.evalImgs), pictures):  # class by class, then by picture
        found = evaluation.evalImgs[first : first + pictures]
        objects = np.array([0 if e is None else np.sum(e["gtIgnore"] == 0) for e in found])
        present = [(i, e) for i, e in enumerate(found) if e is not None]
        if not present:
            continue
        scores = np.concatenate([e["dtScores"] for _, e in present])
        order = np.argsort(-scores, kind="mergesort")
        classes.append(
            ClassMatches(
                np.concatenate([[i] * len(e["dtScores"]) for i, e in present]).astype(int)[order],
                np.concatenate([e["dtMatches"] for _, e in present], axis=1)[:, order] > 0,
                np.concatenate([e["dtIgnore"] for _, e in present], axis=1)[:, order] > 0,
                objects,
            )
        )
    return classes


def average_precision(classes: list[ClassMatches], counts: np.ndarray) -> float:
    """COCO's AP, from 0 to 1, of pictures that count several times or not at all.

    Args:
        classes: of :func:`match_detections`.
        counts: how often each picture counts, integers of shape (pictures,).

    Returns:
        Precision, made monotonic, at 101 recalls; mean over recalls, IoU thresholds and those
        classes that have an object; not a number if none has.
    """
    recalls = np.linspace(0, 1, 101)
    by_class = []
    for found in classes:
        objects = counts @ found.objects
        if not objects:
            continue
        weights = counts[found.picture] * ~found.ignored
        hits = np.cumsum(weights * found.matched, axis=1)
        precision = hits / np.maximum(np.cumsum(weights, axis=1), 1)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        precision = np.pad(precision, ((0, 0), (0, 1)))  # recalls that are not reached
        at = [np.searchsorted(row, recalls, side="left") for row in hits / objects]
        by_class.append(np.mean(np.take_along_axis(precision, np.stack(at), axis=1)))
    return float(np.mean(by_class)) if by_class else float("nan")


def _summary(ours: np.ndarray, base: np.ndarray) -> dict:
    """Figures of one pair from its AP in every draw, of which the first is the data set itself."""
    low, high = np.nanpercentile((ours - base)[1:], [2.5, 97.5])
    return {
        "ap": float(ours[0]),
        "baseline": float(base[0]),
        "difference": float(ours[0] - base[0]),
        "interval": [float(low), float(high)],
    }


def _annotations(path: str) -> COCO:
    content, troubles = read_coco(PathManager.get_local_path(path))
    if not troubles and not content["images"]:
        troubles = ["it has no pictures; name another data set"]
    if troubles:
        raise InputError(f"{path}: {troubles[0]}")
    truth = COCO()
    truth.dataset = content
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # COCO's classes print
            truth.createIndex()
        complete(truth)
    except (LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is no file of annotations in COCO's format ({type(error).__name__}: {error}); "
            "export it again"
        ) from error
    return truth


def _read(path: str) -> list[dict]:
    try:
        predictions = json.loads(Path(path).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"predictions {path!r} cannot be read: {error}") from error
    keys = {"image_id", "category_id", "bbox", "score"}
    fits = predictions if isinstance(predictions, list) else []
    if not fits or not all(isinstance(p, dict) and keys <= p.keys() and _counts(p) for p in fits):
        raise InputError(
            f"{path} holds no predictions in COCO's format; Detectron2's evaluator writes "
            "inference/coco_instances_results.json into OUTPUT_DIR"
        )
    return predictions


def _counts(prediction: dict) -> bool:
    """Whether a prediction has a score and a box of numbers."""
    box, score = prediction["bbox"], prediction["score"]
    numbers = [score, *box] if isinstance(box, list) and len(box) == 4 else [None]
    return all(type(x) in (int, float) and math.isfinite(x) for x in numbers)
