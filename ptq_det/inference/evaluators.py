"""The evaluator of a data set."""

import logging
import os

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

from ..coco_defaults import complete
from ..packing.header import class_names

__all__ = ["EVALUATOR_TYPES", "build_evaluator"]


class _CompleteCOCOEvaluator(COCOEvaluator):
    """Fills in what COCO's evaluation reads of annotations and other tools do not write."""

    def __init__(self, cfg: CfgNode, name: str, folder: str):
        # Annotations that were written for another run may be those of other records.
        super().__init__(
            name,
            output_dir=folder,
            kpt_oks_sigmas=tuple(cfg.TEST.KEYPOINT_OKS_SIGMAS),
            allow_cached_coco=False,
        )
        complete(self._coco_api)


# evaluator_type of a data set's metadata -> what evaluates it, as (config, data set, folder) ->
# evaluator
_EVALUATORS = {
    "coco": [_CompleteCOCOEvaluator],
    "sem_seg": [lambda cfg, name, folder: SemSegEvaluator(name, output_dir=folder)],
    "coco_panoptic_seg": [
        lambda cfg, name, folder: SemSegEvaluator(name, output_dir=folder),
        _CompleteCOCOEvaluator,
        lambda cfg, name, folder: COCOPanopticEvaluator(name, folder),
    ],
    "cityscapes_instance": [lambda cfg, name, folder: CityscapesInstanceEvaluator(name)],
    "cityscapes_sem_seg": [lambda cfg, name, folder: CityscapesSemSegEvaluator(name)],
    "pascal_voc": [lambda cfg, name, folder: PascalVOCDetectionEvaluator(name)],
    "lvis": [lambda cfg, name, folder: LVISEvaluator(name, output_dir=folder)],
}

EVALUATOR_TYPES = tuple(sorted(_EVALUATORS))


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
            f"known are {', '.join(EVALUATOR_TYPES)}"
        )
    folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    evaluators = [build(cfg, dataset_name, folder) for build in _EVALUATORS[kind]]
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
