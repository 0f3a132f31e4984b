"""Evaluators and test-time augmentation, as Detectron2's own training script chooses them."""

import os
from collections import OrderedDict

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

__all__ = ["build_evaluator", "evaluate_with_augmentation"]

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
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def evaluate_with_augmentation(trainer_class, cfg: CfgNode, model) -> OrderedDict:
    """Evaluate with test-time augmentation (``TEST.AUG``); every result's name ends in ``_TTA``."""
    from detectron2.modeling import GeneralizedRCNNWithTTA

    folder = os.path.join(cfg.OUTPUT_DIR, "inference_TTA")
    evaluators = [build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
    results = trainer_class.test(cfg, GeneralizedRCNNWithTTA(cfg, model), evaluators)
    return OrderedDict((f"{name}_TTA", value) for name, value in results.items())
