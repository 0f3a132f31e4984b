"""Data sets: the built-in one, and one's own in COCO format. Importing this registers them."""

import os

from .coco_folders import register_coco_folders
from .shapes import register_shapes
from .weights import register_weights

__all__ = ["register_coco_folders", "register_shapes", "register_weights"]

register_shapes()
register_coco_folders(os.path.expanduser(os.getenv("DETECTRON2_DATASETS", "datasets")))
register_weights()
