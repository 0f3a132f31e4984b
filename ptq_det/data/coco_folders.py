"""Registers one's own COCO-format data sets by where they lie."""

import json
from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

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
            paths = {"json_file": str(annotations), "image_root": str(images)}
            DatasetCatalog.register(name, partial(_load, dataset_name=name, **paths))
            MetadataCatalog.get(name).set(**paths, evaluator_type="coco")
            names.append(name)
    return names


def _load(json_file: str, image_root: str, dataset_name: str) -> list[dict]:
    """Detectron2's records; where objects have keypoints, their names are set as metadata too."""
    records = load_coco_json(json_file, image_root, dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    has_keypoints = any("keypoints" in x for record in records for x in record["annotations"])
    if has_keypoints and metadata.get("keypoint_names") is None:
        with open(json_file, encoding="utf-8") as file:
            categories = json.load(file)["categories"]
        names = next((list(c["keypoints"]) for c in categories if c.get("keypoints")), None)
        if names:
            metadata.set(keypoint_names=names, keypoint_flip_map=_flips(names))
    return records


def _flips(names: list[str]) -> list[tuple[str, str]]:
    """Pairs of keypoints that differ by left and right alone, which a flip exchanges."""
    pairs = ((name, name.replace("left", "right").replace("Left", "Right")) for name in names)
    return [(left, right) for left, right in pairs if left != right and right in names]
