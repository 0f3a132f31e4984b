"""Checks of what a user names in a config, before any work is done."""

import difflib
import os
import tempfile

import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from ..config import MERGE_ERRORS, add_ternary_config
from ..data.coco_check import check_coco
from ..data.picture_check import check_pictures
from ..errors import InputError
from ..packing.header import CLASS_KEYS, number_of_classes

__all__ = [
    "check_augmentation",
    "check_classes",
    "check_data",
    "check_datasets",
    "check_device",
    "check_output",
    "check_weights",
    "find_config_file",
    "read_config",
]


_SHOWN = 20  # lines of a message


def find_config_file(path: str) -> str:
    """The path of a config on disk, or of one of Detectron2's model zoo by its name there.

    Raises:
        InputError: it is in neither place.
    """
    if not path:
        raise InputError("no config: give --config-file, e.g. configs/mask_rcnn_R50_ptq.yaml")
    if PathManager.isfile(path):
        return path
    try:
        return model_zoo.get_config_file(path)
    except RuntimeError:  # what the zoo raises for a name it does not have
        raise InputError(
            f"config file {path!r} not found (from folder {os.getcwd()!r}, or in Detectron2's zoo)"
        ) from None


def read_config(path: str, overrides: list[str]) -> CfgNode:
    """Read a config with the node ``TERNARY``.

    Args:
        path: as :func:`find_config_file` has it.
        overrides: keys and values that override it.

    Raises:
        InputError: there is no such config, or a key or value is wrong.
    """
    path = find_config_file(path)
    cfg = get_cfg()
    add_ternary_config(cfg)
    try:
        cfg.merge_from_file(path)
        cfg.merge_from_list(overrides)
    except MERGE_ERRORS as error:
        raise InputError(f"{path} or an override: {error}") from error
    return cfg


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


def check_data(cfg: CfgNode, training: bool) -> None:
    """Look through annotations in COCO's format, and through the headers of their pictures.

    Args:
        cfg: full config.
        training: whether ``DATASETS.TRAIN`` is used, or ``DATASETS.TEST`` alone.

    Raises:
        InputError: something would fail, or mislead, in training or evaluation; the message has
            all that was found, with what to do.
    """
    lines = []
    train = cfg.DATASETS.TRAIN if training else ()
    for name in dict.fromkeys([*train, *cfg.DATASETS.TEST]):
        metadata = MetadataCatalog.get(name)
        path = metadata.get("json_file")
        if path is None or metadata.get("evaluator_type") not in ("coco", None):
            continue
        path = PathManager.get_local_path(path)
        polygons = name in train and cfg.INPUT.MASK_FORMAT == "polygon"
        troubles = check_coco(path, cfg.MODEL.MASK_ON, polygons)
        lines += [f"{path}: {trouble}" for trouble in troubles]
        if not troubles:
            lines += check_pictures(DatasetCatalog.get(name))
    if lines:
        more = f"\n  and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise InputError(
            "the data cannot be used as they are:\n  " + "\n  ".join(lines[:_SHOWN]) + more
        )


def check_device(cfg: CfgNode) -> None:
    """Raise :class:`InputError` if ``MODEL.DEVICE`` is not there, or has no mixed precision."""
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        raise InputError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but PyTorch finds no GPU; "
            "set MODEL.DEVICE cpu to run on the processor"
        )
    if cfg.SOLVER.AMP.ENABLED and not on_gpu and cfg.MODEL.DEVICE != "cpu":
        raise InputError(
            f"SOLVER.AMP.ENABLED needs a GPU or CPU, but MODEL.DEVICE is {cfg.MODEL.DEVICE!r}; "
            "set SOLVER.AMP.ENABLED False"
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
    names = [*(cfg.DATASETS.TRAIN if training else ()), *cfg.DATASETS.TEST]
    first = None
    for name in dict.fromkeys(names):
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


def check_augmentation(cfg: CfgNode) -> None:
    """Raise :class:`InputError` if test-time augmentation is asked for and the model has none."""
    if cfg.TEST.AUG.ENABLED and cfg.MODEL.META_ARCHITECTURE != "GeneralizedRCNN":
        raise InputError(
            "TEST.AUG.ENABLED is True, but Detectron2 has test-time augmentation for "
            f"GeneralizedRCNN alone, not for {cfg.MODEL.META_ARCHITECTURE}; set it False"
        )


def check_output(cfg: CfgNode) -> None:
    """Raise :class:`InputError` if there is nothing to train, or nowhere to write it to."""
    if cfg.SOLVER.MAX_ITER < 1:
        raise InputError(
            f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}, so nothing is trained; set it above 0, or "
            "evaluate with --eval-only"
        )
    if "://" in cfg.OUTPUT_DIR:
        return
    try:
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
        with tempfile.TemporaryFile(dir=cfg.OUTPUT_DIR):
            pass
    except OSError as error:
        raise InputError(
            f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} cannot be written to ({error}); set it to a folder "
            "that can"
        ) from error


def check_weights(path: str) -> None:
    """Raise :class:`InputError` if the weights cannot be had; download them from a URL."""
    if not path:
        return
    try:
        local = PathManager.get_local_path(path.split("?")[0])
    except Exception as error:  # iopath lets through whatever the network library raises
        raise InputError(
            f"MODEL.WEIGHTS {path!r} could not be downloaded ({error}). Check the network and the "
            "address, or download the file elsewhere and set MODEL.WEIGHTS to it."
        ) from error
    if not os.path.isfile(local):
        raise InputError(
            f"MODEL.WEIGHTS {path!r} not found (from folder {os.getcwd()!r}). Set MODEL.WEIGHTS to "
            "a file that exists; the last words of the command override the config."
        )
