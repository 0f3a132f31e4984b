"""Checks of the data sets that a config names, before any work is done."""

import difflib
import importlib.util
import os

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..data.coco_check import check_content, class_names_of, pictures_of, read_coco
from ..data.picture_check import check_pictures
from ..data.record_check import check_records
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

_SHOWN = 10  # lines of a data set in a message
_PATHS = (  # keys of a data set's metadata
    "json_file",
    "image_root",
    "panoptic_json",
    "panoptic_root",
    "sem_seg_root",
    "image_dir",
    "gt_dir",
    "dirname",
)
_COCO_TYPES = ("coco", "coco_panoptic_seg", None)  # whose json_file is in COCO's format
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
        for key in _PATHS:
            path = metadata.get(key)
            if path and not PathManager.exists(path):
                raise InputError(
                    f"data set {name!r} needs {path!r}, which is not there. Point "
                    f"DETECTRON2_DATASETS to the folder that holds your data sets ({place})."
                )


def check_data(cfg: CfgNode, training: bool, decode: bool = False) -> None:
    """Look through annotations in COCO's format or the records of a registered function, and
    through the headers of their pictures.

    Args:
        cfg: full config.
        training: whether ``DATASETS.TRAIN`` is used, or ``DATASETS.TEST`` alone.
        decode: read the pixels of all pictures too.

    Raises:
        InputError: something would fail, or mislead, in training or evaluation; the message has
            all that was found, with what to do.
    """
    lines = []
    for name in datasets_of(cfg, training):
        found = _troubles_of(cfg, name, training and name in cfg.DATASETS.TRAIN, decode)
        lines += found[:_SHOWN]
        if len(found) > _SHOWN:
            lines.append(f"and {len(found) - _SHOWN} more of {name!r}")
    if lines:
        raise InputError("the data cannot be used as they are:\n  " + "\n  ".join(lines))


def _troubles_of(cfg: CfgNode, name: str, learned: bool, decode: bool) -> list[str]:
    """What is wrong with a data set, a line each."""
    metadata = MetadataCatalog.get(name)
    path, root = metadata.get("json_file"), metadata.get("image_root")
    is_coco = path is not None and metadata.get("evaluator_type") in _COCO_TYPES
    lines, pictures = [], []
    if is_coco:
        path = PathManager.get_local_path(path)
        content, troubles = read_coco(path)
        if content:
            troubles = check_content(content, *_demands(cfg, name, learned))
            pictures = pictures_of(content, root) if troubles and root is not None else []
        del content  # before Detectron2 has its own
        lines = [f"{path}: {trouble}" for trouble in troubles]
    if not lines:
        try:
            records = DatasetCatalog.get(name)
        except Exception as error:  # functions of others raise what they like
            return [f"data set {name!r} cannot be read ({type(error).__name__}: {error})"]
        if not isinstance(records, list):
            return []  # a data set of PyTorch's, which is read one by one
        classes = None if is_coco else number_of_classes(cfg)  # those of a file have names
        pixels = metadata.get("evaluator_type") == "sem_seg"
        troubles, pictures = check_records(records, classes, name in cfg.DATASETS.TEST, pixels)
        lines = [f"data set {name!r}: {trouble}" for trouble in troubles]
    return lines + check_pictures(pictures, decode)


def _demands(cfg: CfgNode, name: str, learned: bool) -> tuple[bool, bool, int, bool]:
    """Whether annotations need masks, polygons, how many keypoints, and objects."""
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS if cfg.MODEL.KEYPOINT_ON else 0
    polygons = learned and cfg.INPUT.MASK_FORMAT == "polygon"
    background = not cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS and name not in cfg.DATASETS.TEST
    return cfg.MODEL.MASK_ON, polygons, keypoints, not (learned and background)


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


def check_keypoints(cfg: CfgNode, training: bool, readable: bool = True) -> None:
    """Hold ``NUM_KEYPOINTS`` against what data sets and evaluation know of keypoints.

    Args:
        cfg: full config.
        training: whether ``DATASETS.TRAIN`` counts too.
        readable: whether the data sets were read, which tells the names of some keypoints.

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
        if names is None and not readable:
            continue
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
    if any(type(sigma) not in (int, float) or not sigma > 0 for sigma in sigmas):
        raise InputError(
            f"TEST.KEYPOINT_OKS_SIGMAS is {sigmas!r}; they are how far keypoints may be from where "
            "they are, as parts of the object's size: write numbers above 0, e.g. 0.05"
        )
    if cfg.DATASETS.TEST and len(sigmas or [0] * _COCO_KEYPOINTS) != count:
        raise InputError(
            f"TEST.KEYPOINT_OKS_SIGMAS has {len(sigmas)} numbers for {count} keypoints; COCO's "
            f"evaluation needs one for each (it has its own for {_COCO_KEYPOINTS} alone), e.g. "
            f'"{(0.05,) * 2}" for 2'
        )


def check_classes(cfg: CfgNode, training: bool = True, readable: bool = True) -> None:
    """Compare the classes of the data sets with the model's, and those of test sets with the
    training sets'.

    Reads annotations whose classes are not known yet.

    Args:
        cfg: full config.
        training: whether ``DATASETS.TRAIN`` counts too.
        readable: whether Detectron2 can read the data sets; else the categories are taken from
            their files.

    Raises:
        InputError: another number or names of classes, or, among training sets, another order. A
            test set of another order is evaluated by the names.
    """
    expected = number_of_classes(cfg)
    first = None
    for name in datasets_of(cfg, training):
        classes = _classes_of(name, readable)
        if classes is None:
            kind = MetadataCatalog.get(name).get("evaluator_type")
            if readable and name in cfg.DATASETS.TEST and kind == "coco":
                raise InputError(
                    f"test set {name!r} does not tell the names of its classes, which its "
                    f"evaluation reads; call MetadataCatalog.get({name!r}).set(thing_classes=[…])"
                )
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


def _classes_of(name: str, readable: bool) -> list[str] | None:
    metadata = MetadataCatalog.get(name)
    if not metadata.get("thing_classes") and metadata.get("json_file"):
        if not readable:
            content, _ = read_coco(PathManager.get_local_path(metadata.json_file))
            return class_names_of(content) if content else None
        DatasetCatalog.get(name)  # COCO files tell their classes when they are read
    classes = metadata.get("thing_classes")
    return None if classes is None else list(classes)
