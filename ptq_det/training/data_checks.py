"""Checks of the data sets that a config names, before any work is done."""

import difflib
import importlib.util
import os

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..data.coco_check import check_coco
from ..data.picture_check import check_pictures
from ..errors import InputError
from ..inference.evaluators import EVALUATOR_TYPES
from ..packing.header import CLASS_KEYS, number_of_classes

__all__ = [
    "check_classes",
    "check_data",
    "check_datasets",
    "check_evaluators",
    "check_keypoints",
    "datasets_of",
]

_SHOWN = 20  # lines of a message
_LIBRARIES = {  # evaluator_type of a data set -> what its evaluation imports, and its name at PyPI
    "lvis": ("lvis", "lvis"),
    "coco_panoptic_seg": (
        "panopticapi",
        "git+https://github.com/cocodataset/panopticapi",
    ),
    "cityscapes_instance": ("cityscapesscripts", "cityscapesscripts"),
    "cityscapes_sem_seg": ("cityscapesscripts", "cityscapesscripts"),
}
_COCO_KEYPOINTS = 17  # for which pycocotools has the sigmas


def datasets_of(cfg: CfgNode, training: bool) -> list[str]:
    """Names of the data sets that a training, or an evaluation alone, uses."""
    return list(dict.fromkeys([*(cfg.DATASETS.TRAIN if training else ()), *cfg.DATASETS.TEST]))


def check_datasets(names) -> None:
    """Raise :class:`InputError` if a data set is not registered or its files are not there."""
    root = os.getenv("DETECTRON2_DATASETS", "datasets")
    place = (
        f"DETECTRON2_DATASETS is {root!r}"
        if "DETECTRON2_DATASETS" in os.environ
        else "DETECTRON2_DATASETS is not set, so ./datasets is searched"
    )
    for name in names:
        if name not in DatasetCatalog:
            close = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
            hint = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise InputError(
                f"data set {name!r} is not registered.{hint} Own data in COCO format is found "
                "as <folder>_<split> under $DETECTRON2_DATASETS/<folder>/annotations/<split>.json "
                f"with its pictures in <folder>/images ({place})."
            )
        metadata = MetadataCatalog.get(name)
        if "prepare" in metadata.as_dict():
            metadata.prepare()
        for key in ("json_file", "image_root"):
            path = metadata.get(key)
            if path and not PathManager.exists(path):
                raise InputError(
                    f"data set {name!r} needs {path!r}, which is not there. Point "
                    f"DETECTRON2_DATASETS to the folder that holds your data sets ({place})."
                )


def check_data(cfg: CfgNode, training: bool, decode: bool = False) -> None:
    """Look through annotations in COCO's format, and through the headers of their pictures.

    Args:
        cfg: full config.
        training: whether ``DATASETS.TRAIN`` is used, or ``DATASETS.TEST`` alone.
        decode: read the pixels of all pictures too.

    Raises:
        InputError: something would fail, or mislead, in training or evaluation; the message has
            all that was found, with what to do.
    """
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS if cfg.MODEL.KEYPOINT_ON else 0
    lines = []
    for name in datasets_of(cfg, training):
        metadata = MetadataCatalog.get(name)
        path = metadata.get("json_file")
        if path is None or metadata.get("evaluator_type") not in ("coco", None):
            continue
        path = PathManager.get_local_path(path)
        learned = training and name in cfg.DATASETS.TRAIN
        polygons = learned and cfg.INPUT.MASK_FORMAT == "polygon"
        troubles = check_coco(path, cfg.MODEL.MASK_ON, polygons, keypoints)
        lines += [f"{path}: {trouble}" for trouble in troubles]
        if not troubles:
            lines += check_pictures(DatasetCatalog.get(name), decode)
    if lines:
        more = f"\n  and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise InputError(
            "the data cannot be used as they are:\n  " + "\n  ".join(lines[:_SHOWN]) + more
        )


def check_evaluators(cfg: CfgNode) -> None:
    """Raise :class:`InputError` if a test set's evaluation is not known or lacks its library."""
    for name in cfg.DATASETS.TEST:
        kind = MetadataCatalog.get(name).get("evaluator_type")
        if kind not in EVALUATOR_TYPES:
            raise InputError(
                f"test set {name!r} has the evaluator_type {kind!r} in its metadata; known are "
                f"{', '.join(EVALUATOR_TYPES)}"
            )
        module, package = _LIBRARIES.get(kind, ("", ""))
        if module and importlib.util.find_spec(module) is None:
            raise InputError(
                f"the evaluation of {name!r} needs the library {module}: pip install {package}"
            )


def check_keypoints(cfg: CfgNode, training: bool) -> None:
    """Hold ``NUM_KEYPOINTS`` against what data sets and evaluation know of keypoints.

    Raises:
        InputError: names or flips of keypoints are not known, there are more or fewer, or the
            evaluation lacks their sigmas.
    """
    if not cfg.MODEL.KEYPOINT_ON:
        return
    count = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    for name in datasets_of(cfg, training):
        metadata = MetadataCatalog.get(name)
        names = metadata.get("keypoint_names")
        if names is None or metadata.get("keypoint_flip_map") is None:
            raise InputError(
                f"data set {name!r} does not tell the names of its keypoints, nor which of them "
                'change places when a picture is flipped; give its categories "keypoints": '
                '["left_eye", "right_eye", …] in the annotations, or call '
                f"MetadataCatalog.get({name!r}).set(keypoint_names=[…], keypoint_flip_map=[…])"
            )
        if len(names) != count:
            raise InputError(
                f"data set {name!r} has {len(names)} keypoints, but "
                f"MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS is {count}; set it to {len(names)}"
            )
    sigmas = cfg.TEST.KEYPOINT_OKS_SIGMAS
    if cfg.DATASETS.TEST and len(sigmas or [0] * _COCO_KEYPOINTS) != count:
        raise InputError(
            f"TEST.KEYPOINT_OKS_SIGMAS has {len(sigmas)} numbers for {count} keypoints; COCO's "
            f"evaluation needs one for each (it has its own for {_COCO_KEYPOINTS} alone), e.g. "
            f'"{(0.05,) * 2}" for 2'
        )


def check_classes(cfg: CfgNode, training: bool = True) -> None:
    """Compare the classes of the data sets with the model's, and those of test sets with the
    training sets'.

    Reads annotations whose classes are not known yet.

    Args:
        cfg: full config.
        training: whether ``DATASETS.TRAIN`` counts too.

    Raises:
        InputError: another number or names of classes, or, among training sets, another order. A
            test set of another order is evaluated by the names.
    """
    expected = number_of_classes(cfg)
    first = None
    for name in datasets_of(cfg, training):
        classes = _classes_of(name)
        if classes is None:
            continue
        if expected is not None and len(classes) != expected:
            key = f"MODEL.{CLASS_KEYS[cfg.MODEL.META_ARCHITECTURE]}.NUM_CLASSES"
            raise InputError(
                f"data set {name!r} has {len(classes)} classes but {key} is {expected}; set {key} "
                f"{len(classes)}, or give data sets of the same classes"
            )
        if first is None:
            first = (name, classes)
        elif classes != first[1]:
            is_test = not training or name not in cfg.DATASETS.TRAIN
            if is_test and sorted(classes) == sorted(first[1]):
                continue  # evaluated by their names
            raise InputError(
                f"data sets {first[0]!r} and {name!r} have other classes, or number them "
                f"otherwise: {first[1][:8]} and {classes[:8]}. Give both the same list of "
                "categories, in the same order"
            )


def _classes_of(name: str) -> list[str] | None:
    metadata = MetadataCatalog.get(name)
    if not metadata.get("thing_classes") and metadata.get("json_file"):
        DatasetCatalog.get(name)  # COCO files tell their classes when they are read
    classes = metadata.get("thing_classes")
    return None if classes is None else list(classes)
