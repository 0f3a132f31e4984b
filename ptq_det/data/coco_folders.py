"""Registers one's own COCO-format data sets by where they lie."""

from pathlib import Path

from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances

__all__ = ["register_coco_folders"]


def register_coco_folders(root: str) -> list[str]:
    """Register every ``<root>/<name>/annotations/<split>.json`` as the data set ``<name>_<split>``.

    Pictures are looked for in ``<root>/<name>/images``; a folder without it is left alone, and so
    is a name that is registered already. Annotations are read only when a data set is used.

    Args:
        root: the folder that ``DETECTRON2_DATASETS`` names.

    Returns:
        The names that were registered.
    """
    names = []
    for annotations in sorted(Path(root).glob("*/annotations/*.json")):
        images = annotations.parent.parent / "images"
        name = f"{annotations.parent.parent.name}_{annotations.stem}"
        if images.is_dir() and name not in DatasetCatalog:
            register_coco_instances(name, {}, str(annotations), str(images))
            names.append(name)
    return names
