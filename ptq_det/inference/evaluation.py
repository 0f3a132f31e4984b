"""Evaluators, test-time augmentation and the packed models that are evaluated."""

import dataclasses
import logging
import os
from collections import OrderedDict

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
)
from detectron2.utils.file_io import PathManager
from torch import nn

from ..errors import InputError
from ..packing.container import PackedFileError, is_packed
from ..packing.header import class_names
from ..packing.packed_model import PackedModel
from .loading import build_packed

__all__ = [
    "build_evaluator",
    "build_for_evaluation",
    "evaluate_with_augmentation",
    "load_for_evaluation",
    "packed_weights",
]

# evaluator_type of a data set's metadata -> what evaluates it, as (data set, folder) -> evaluator
_EVALUATORS = {
    "coco": [lambda name, folder: COCOEvaluator(name, output_dir=folder)],
    "sem_seg": [lambda name, folder: SemSegEvaluator(name, output_dir=folder)],
    "coco_panoptic_seg": [
        lambda name, folder: SemSegEvaluator(name, output_dir=folder),
        lambda name, folder: COCOEvaluator(name, output_dir=folder),
        lambda name, folder: COCOPanopticEvaluator(name, folder),
    ],
    "cityscapes_instance": [lambda name, folder: CityscapesInstanceEvaluator(name)],
    "cityscapes_sem_seg": [lambda name, folder: CityscapesSemSegEvaluator(name)],
    "pascal_voc": [lambda name, folder: PascalVOCDetectionEvaluator(name)],
    "lvis": [lambda name, folder: LVISEvaluator(name, output_dir=folder)],
}


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str | None = None
) -> DatasetEvaluator:
    """Build the evaluator that a data set's metadata asks for.

    Args:
        cfg: the full config.
        dataset_name: a registered data set.
        output_folder: where results are written, ``OUTPUT_DIR/inference`` by default.

    Raises:
        NotImplementedError: the data set's ``evaluator_type`` is not known.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in _EVALUATORS:
        raise NotImplementedError(
            f"the data set {dataset_name!r} has the evaluator_type {kind!r} in its metadata; "
            f"known are {', '.join(sorted(_EVALUATORS))}"
        )
    folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    evaluators = [build(dataset_name, folder) for build in _EVALUATORS[kind]]
    evaluator = evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)
    trained, tested = class_names(cfg), MetadataCatalog.get(dataset_name).get("thing_classes") or []
    if trained == list(tested) or sorted(trained) != sorted(tested):
        return evaluator
    logging.getLogger("ptq_det").warning(
        "%s has the classes in another order (%s) than the training had (%s); they are evaluated "
        "by their names",
        dataset_name,
        ", ".join(tested[:8]),
        ", ".join(trained[:8]),
    )
    return _ByName(evaluator, [tested.index(name) for name in trained])


class _ByName(DatasetEvaluator):
    """Evaluates on a data set that numbers the classes otherwise than the training's.

    Args:
        evaluator: of the data set.
        numbers: of the training's classes there, in the order of the training.
    """

    def __init__(self, evaluator: DatasetEvaluator, numbers: list[int]):
        self._evaluator, self._numbers = evaluator, torch.tensor(numbers)

    def reset(self):
        self._evaluator.reset()

    def process(self, inputs, outputs):
        for output in outputs:
            found = output["instances"]
            found.pred_classes = self._numbers.to(found.pred_classes.device)[found.pred_classes]
        self._evaluator.process(inputs, outputs)

    def evaluate(self):
        return self._evaluator.evaluate()


def evaluate_with_augmentation(trainer_class, cfg: CfgNode, model) -> OrderedDict:
    """Evaluate with test-time augmentation (``TEST.AUG``); every result's name ends in ``_TTA``."""
    from detectron2.modeling import GeneralizedRCNNWithTTA

    folder = os.path.join(cfg.OUTPUT_DIR, "inference_TTA")
    evaluators = [build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
    results = trainer_class.test(cfg, GeneralizedRCNNWithTTA(cfg, model), evaluators)
    return OrderedDict((f"{name}_TTA", value) for name, value in results.items())


def packed_weights(cfg: CfgNode, weights: str) -> str | None:
    """The packed model that weights are, or None where they are others.

    Args:
        cfg: full config.
        weights: a file that is there, with or without what Detectron2 has behind a ``?``; or empty.

    Raises:
        InputError: they are others, but ``TERNARY.ENGINE`` names what runs packed models alone.
    """
    path = weights.split("?")[0]
    if path and is_packed(PathManager.get_local_path(path)):
        return path
    if cfg.TERNARY.ENGINE:
        raise InputError(
            f"TERNARY.ENGINE {cfg.TERNARY.ENGINE} runs packed files, and the weights are "
            f"{weights!r}; give as MODEL.WEIGHTS the model_final.safetensors that training ends "
            "with, or what tools/pack.py writes"
        )
    return None


def load_for_evaluation(cfg: CfgNode, path: str, engine: str | None = None) -> nn.Module:
    """A packed model as ``cfg`` has it, thresholds included.

    Args:
        cfg: full config; its ``MODEL.WEIGHTS`` are not looked at.
        path: packed file.
        engine: what runs it, in place of ``TERNARY.ENGINE``.

    Raises:
        InputError: the file is of another config, or as :func:`ptq_det.load_packed`.
    """
    return build_for_evaluation(PackedModel.read(path), cfg, engine)


def build_for_evaluation(packed: PackedModel, cfg: CfgNode, engine: str | None = None) -> nn.Module:
    """A packed model as a config has it; arguments and errors as :func:`load_for_evaluation`."""
    if not packed.architecture.is_detector:
        raise InputError(f"{packed.path} holds no detector but {packed.architecture}")
    packed = dataclasses.replace(packed, override=cfg)
    try:
        return build_packed(packed, cfg.MODEL.DEVICE, engine or cfg.TERNARY.ENGINE)
    except PackedFileError as error:
        raise InputError(
            f"{error}. It is a packed model of another config than this one; "
            "ptq_det.packed_config(path) gives its own"
        ) from error
