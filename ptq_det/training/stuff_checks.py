"""Whether data sets have the classes of pixels that the model has."""

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..errors import InputError
from .data_checks import datasets_of

__all__ = ["check_stuff_classes"]

_PIXEL_TYPES = ("sem_seg", "coco_panoptic_seg")
_STUFF = ("PanopticFPN", "SemanticSegmentor", "PanopticDeepLab")  # architectures


def check_stuff_classes(cfg: CfgNode, training: bool = True) -> None:
    """Compare the classes of pixels of data sets with the model's.

    Args:
        cfg: full config; without a head for pixels nothing is compared.
        training: whether ``DATASETS.TRAIN`` counts too.

    Raises:
        InputError: a data set has another number or order of them, or does not tell them to its
            evaluation.
    """
    if cfg.MODEL.META_ARCHITECTURE not in _STUFF:
        return
    expected, first = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, None
    for name in datasets_of(cfg, training):
        metadata = MetadataCatalog.get(name)
        classes = metadata.get("stuff_classes")
        if name in cfg.DATASETS.TEST and metadata.get("evaluator_type") in _PIXEL_TYPES:
            lacking = [x for x in ("stuff_classes", "ignore_label") if metadata.get(x) is None]
            if lacking:
                raise InputError(
                    f"test set {name!r} does not tell {' and '.join(lacking)}, which its "
                    f"evaluation reads; call MetadataCatalog.get({name!r}).set({lacking[0]}=…)"
                )
        if classes is None:
            continue
        if len(classes) != expected:
            raise InputError(
                f"data set {name!r} has {len(classes)} classes of pixels (stuff_classes) but "
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {expected}; set it to {len(classes)}, or give "
                "data sets of the same classes"
            )
        first = first or (name, list(classes))
        if list(classes) != first[1]:
            raise InputError(
                f"data sets {first[0]!r} and {name!r} have other classes of pixels, or number them "
                f"otherwise: {first[1][:8]} and {list(classes)[:8]}. Give both the same list"
            )
