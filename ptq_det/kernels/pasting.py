"""Masks of boxes as masks of pictures."""

import numpy as np

from .library import Kernels

__all__ = ["paste_masks"]


def paste_masks(
    masks: np.ndarray,
    boxes: np.ndarray,
    height: int,
    width: int,
    threshold: float,
    threads: int,
) -> np.ndarray:
    """Each mask over its box in a picture of its own, as Detectron2's ``paste_masks_in_image``.

    Args:
        masks: float32 ``(n, side, side)``, probabilities.
        boxes: float32 ``(n, 4)``: x0, y0, x1, y1 in the picture's pixels.
        height, width: of the picture.
        threshold: from which probability on, above 0, a pixel is of the mask.

    Returns:
        Boolean ``(n, height, width)``; memory of what no mask covers is not touched.
    """
    masks = np.ascontiguousarray(masks, np.float32)
    boxes = np.ascontiguousarray(boxes, np.float32)
    pictures = np.zeros((len(masks), height, width), bool)
    Kernels.here().paste(
        masks.ctypes.data,
        boxes.ctypes.data,
        len(masks),
        masks.shape[1],
        height,
        width,
        threshold,
        pictures.ctypes.data,
        threads,
    )
    return pictures
