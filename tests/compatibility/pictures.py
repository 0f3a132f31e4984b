"""A few generated pictures with all that any recipe learns from, as registered data sets."""

import functools
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BoxMode
from pycocotools import mask as mask_utils

from ptq_det.data.shapes import CLASSES, generate_shapes

__all__ = ["KEYPOINTS", "STUFF", "register_pictures", "write_proposals"]

KEYPOINTS = 17  # along the diagonal of a box; as many as COCO's evaluation has sigmas for
STUFF = ("things", "ground")


def register_pictures(folder: Path) -> None:
    """Register ``all_train`` and ``all_val``, and the same for their pixels' classes alone,
    ``pixels_train`` and ``pixels_val``."""
    for split, count in (("train", 8), ("val", 4)):
        generate_shapes(folder, split, count)
        load = functools.partial(_records, folder, split)
        for name, kind in ((f"all_{split}", "coco"), (f"pixels_{split}", "sem_seg")):
            if name in DatasetCatalog:
                DatasetCatalog.remove(name)
                MetadataCatalog.remove(name)
            DatasetCatalog.register(name, load)
            MetadataCatalog.get(name).set(
                thing_classes=list(CLASSES),
                stuff_classes=list(STUFF),
                keypoint_names=[f"point {i}" for i in range(KEYPOINTS)],
                keypoint_flip_map=[],
                evaluator_type=kind,
                ignore_label=255,
            )


def _records(folder: Path, split: str) -> list[dict]:
    records = load_coco_json(str(folder / f"annotations/{split}.json"), str(folder / split))
    for record in records:
        pixels = np.ones((record["height"], record["width"]), np.uint8)
        for object_ in record["annotations"]:
            object_["category_id"] -= 1
            x, y, w, h = object_["bbox"]
            steps = np.linspace(0, 1, KEYPOINTS)
            object_["keypoints"] = [float(v) for i in steps for v in (x + i * w, y + i * h, 2)]
            pixels[mask_utils.decode(object_["segmentation"]).astype(bool)] = 0
        stem = os.path.splitext(os.path.basename(record["file_name"]))[0]
        record["sem_seg_file_name"] = str(folder / f"{split}_{stem}.png")
        if not os.path.exists(record["sem_seg_file_name"]):
            cv2.imwrite(record["sem_seg_file_name"], pixels)
    return records


def write_proposals(path: Path, split: str) -> None:
    """Proposals as Fast R-CNN takes them: the true boxes, and some beside them."""
    found = {"ids": [], "boxes": [], "objectness_logits": [], "bbox_mode": BoxMode.XYXY_ABS}
    for record in DatasetCatalog.get(f"all_{split}"):
        boxes = np.float32([object_["bbox"] for object_ in record["annotations"]])
        boxes[:, 2:] += boxes[:, :2]
        boxes = np.concatenate([boxes, boxes + 3])
        found["ids"].append(record["image_id"])
        found["boxes"].append(boxes)
        found["objectness_logits"].append(np.ones(len(boxes), np.float32))
    path.write_bytes(pickle.dumps(found))
