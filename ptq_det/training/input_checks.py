"""Settings of inputs and of the evaluation that would fail hours later."""

import math
import os

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..errors import InputError

__all__ = [
    "check_augmentation",
    "check_expected_results",
    "check_proposals",
    "check_sizes",
]

_METRICS = {"AP", "AP50", "AP75", "APs", "APm", "APl"}


def check_sizes(cfg: CfgNode, training: bool = True) -> None:
    """Raise :class:`InputError` if pictures cannot be scaled as ``INPUT`` says; 0 is no scaling."""
    _check_sizes("INPUT.MIN_SIZE_TEST", cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    if not training:
        return
    sizes, kind = cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
    _check_sizes("INPUT.MIN_SIZE_TRAIN", sizes, cfg.INPUT.MAX_SIZE_TRAIN)
    if kind not in ("choice", "range"):
        raise InputError(f"INPUT.MIN_SIZE_TRAIN_SAMPLING is {kind!r}; choose 'choice' or 'range'")
    is_range = isinstance(sizes, int) or (len(sizes) == 2 and sizes[0] <= sizes[1])
    if kind == "range" and not is_range:
        raise InputError(
            f"INPUT.MIN_SIZE_TRAIN is {sizes!r}; with MIN_SIZE_TRAIN_SAMPLING 'range' it has to be "
            "the least and the largest size, e.g. (640, 800)"
        )
    if cfg.INPUT.RANDOM_FLIP not in ("none", "horizontal", "vertical"):
        raise InputError(
            f"INPUT.RANDOM_FLIP is {cfg.INPUT.RANDOM_FLIP!r}; choose 'none', 'horizontal' or "
            "'vertical'"
        )
    if cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT not in ("polygon", "bitmask"):
        raise InputError(
            f"INPUT.MASK_FORMAT is {cfg.INPUT.MASK_FORMAT!r}; choose 'polygon' or 'bitmask'"
        )


def _check_sizes(key: str, sizes, largest: int) -> None:
    given = list(sizes) if isinstance(sizes, (list, tuple)) else [sizes]
    if not given or not all(type(size) is int and size >= 0 for size in given):
        raise InputError(
            f"{key} is {sizes!r}; set it to the pixels of the shorter side, e.g. 800, or to 0 for "
            "pictures as they are"
        )
    if any(given) and not largest > 0:
        other = key.replace("MIN_SIZE", "MAX_SIZE").removesuffix("S")
        raise InputError(
            f"{other} is {largest}; set it to the most pixels of the longer side, e.g. 1333"
        )


def check_augmentation(cfg: CfgNode) -> None:
    """Raise :class:`InputError` if test-time augmentation is asked for and the model has none."""
    if not cfg.TEST.AUG.ENABLED:
        return
    lacks = "TEST.AUG.ENABLED is True, but Detectron2 has test-time augmentation"
    if cfg.MODEL.META_ARCHITECTURE != "GeneralizedRCNN":
        raise InputError(
            f"{lacks} for GeneralizedRCNN alone, not for {cfg.MODEL.META_ARCHITECTURE}; set it "
            "False"
        )
    if cfg.MODEL.KEYPOINT_ON:
        raise InputError(f"{lacks} for boxes and masks, not for keypoints; set it False")
    if cfg.MODEL.LOAD_PROPOSALS:
        raise InputError(
            f"{lacks} for the model's own proposals alone, not for MODEL.LOAD_PROPOSALS; set it "
            "False"
        )
    sizes = cfg.TEST.AUG.MIN_SIZES
    if not isinstance(sizes, (list, tuple)):
        raise InputError(f"TEST.AUG.MIN_SIZES is {sizes!r}; set it to sizes, e.g. (640, 800)")
    _check_sizes("TEST.AUG.MIN_SIZES", sizes, cfg.TEST.AUG.MAX_SIZE)


def check_proposals(cfg: CfgNode, training: bool = True) -> None:
    """Raise :class:`InputError` if there is not a file of proposals for each data set."""
    if not cfg.MODEL.LOAD_PROPOSALS:
        if cfg.MODEL.PROPOSAL_GENERATOR.NAME == "PrecomputedProposals":
            raise InputError(
                "MODEL.PROPOSAL_GENERATOR.NAME is 'PrecomputedProposals', but none are loaded; set "
                "MODEL.LOAD_PROPOSALS True and DATASETS.PROPOSAL_FILES_TRAIN and _TEST"
            )
        return
    for part in ("TRAIN", "TEST") if training else ("TEST",):
        names, files = cfg.DATASETS[part], cfg.DATASETS[f"PROPOSAL_FILES_{part}"]
        if len(names) != len(files):
            raise InputError(
                f"MODEL.LOAD_PROPOSALS is True, and DATASETS.PROPOSAL_FILES_{part} has "
                f"{len(files)} files for {len(names)} data sets of DATASETS.{part}; give one for "
                "each, or set MODEL.LOAD_PROPOSALS False"
            )
        for file in files:
            if not PathManager.exists(file):
                raise InputError(
                    f"DATASETS.PROPOSAL_FILES_{part} names {file!r}, which is not there (from "
                    f"folder {os.getcwd()!r}); mend the path, or get the file"
                )


def check_expected_results(cfg: CfgNode, training: bool = True) -> None:
    """Raise :class:`InputError` if results cannot be compared with ``TEST.EXPECTED_RESULTS``."""
    entries = cfg.TEST.EXPECTED_RESULTS
    key = "TEST.EXPECTED_RESULTS"
    if not entries:
        return
    if not isinstance(entries, (list, tuple)) or not all(map(_is_expectation, entries)):
        raise InputError(
            f"{key} is {entries!r}; write a list of [task, metric, value, tolerance], e.g. "
            "[['bbox', 'AP', 38.5, 0.2]]"
        )
    if len(cfg.DATASETS.TEST) != 1:
        raise InputError(
            f"{key} is compared with the results of one test set, and DATASETS.TEST has "
            f"{len(cfg.DATASETS.TEST)}; give one, or empty {key}"
        )
    tasks = _tasks(cfg, training)
    for task, metric, *_ in entries:
        if tasks and task not in tasks:
            raise InputError(
                f"{key} names the task {task!r}, which is not evaluated; choose from "
                f"{', '.join(sorted(tasks))}"
            )
        if tasks and metric not in _METRICS and not metric.startswith("AP-"):
            raise InputError(
                f"{key} names the metric {metric!r}, which there is not; choose from "
                f"{', '.join(sorted(_METRICS))}, or 'AP-' and a class"
            )


def _is_expectation(entry) -> bool:
    return (
        isinstance(entry, (list, tuple))
        and len(entry) == 4
        and all(isinstance(text, str) for text in entry[:2])
        and all(type(number) in (int, float) and math.isfinite(number) for number in entry[2:])
        and entry[3] >= 0
    )


def _tasks(cfg: CfgNode, training: bool) -> set[str]:
    """What is evaluated of detectors on a test set of COCO's kind; nothing where not known."""
    (name,) = cfg.DATASETS.TEST
    is_coco = MetadataCatalog.get(name).get("evaluator_type") == "coco"
    if not is_coco or cfg.MODEL.META_ARCHITECTURE not in ("GeneralizedRCNN", "RetinaNet"):
        return set()
    tasks = {"bbox"}
    if cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN":
        tasks |= {"segm"} if cfg.MODEL.MASK_ON else set()
        tasks |= {"keypoints"} if cfg.MODEL.KEYPOINT_ON else set()
    if cfg.TEST.AUG.ENABLED and not training:  # a training compares results without it alone
        tasks |= {f"{task}_TTA" for task in tasks}
    return tasks
