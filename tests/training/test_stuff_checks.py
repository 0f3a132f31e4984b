import pytest
from detectron2.data import MetadataCatalog

from ptq_det.errors import InputError
from ptq_det.training.stuff_checks import check_stuff_classes


def named(name, **metadata):
    MetadataCatalog.pop(name, None)
    MetadataCatalog.get(name).set(**metadata)
    return (name,)


def test_classes_of_pixels(cfg):
    metadata = {"evaluator_type": "sem_seg", "stuff_classes": ["sky", "road"], "ignore_label": 255}
    cfg.DATASETS.TRAIN = named("pixels_train", **metadata)
    cfg.DATASETS.TEST = named("pixels_val", **metadata)
    check_stuff_classes(cfg)  # the model has no head for them
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    with pytest.raises(InputError, match=r"has 2 classes of pixels .*NUM_CLASSES is 54; set "):
        check_stuff_classes(cfg)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    check_stuff_classes(cfg)
    other = {**metadata, "stuff_classes": ["road", "sky"]}
    cfg.DATASETS.TEST = named("pixels_val", **other)
    with pytest.raises(InputError, match="'pixels_train' and 'pixels_val' have other classes of"):
        check_stuff_classes(cfg)
    del other["ignore_label"]
    cfg.DATASETS.TEST = named("pixels_val", **other)
    with pytest.raises(InputError, match="'pixels_val' does not tell ignore_label"):
        check_stuff_classes(cfg)
