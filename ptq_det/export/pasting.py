"""Masks and keypoints of boxes in the picture: NumPy alone."""

import numpy as np

__all__ = ["encode_rle", "keypoints_of", "paste_mask"]

_BICUBIC = -0.75  # PyTorch's coefficient


def paste_mask(mask: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask over a box, in the picture; as Detectron2's ``paste_masks_in_image``.

    Args:
        mask: probabilities ``(M, M)``.
        box: x0, y0, x1, y1 in pixels.
        height, width: of the picture.

    Returns:
        Boolean ``(height, width)``: where the probability is at least a half.
    """
    pasted = np.zeros((height, width), bool)
    x0, y0, x1, y1 = (float(side) for side in box)
    left, upper = max(int(np.floor(x0)) - 1, 0), max(int(np.floor(y0)) - 1, 0)
    right, lower = min(int(np.ceil(x1)) + 1, width), min(int(np.ceil(y1)) + 1, height)
    if right <= left or lower <= upper or x1 <= x0 or y1 <= y0:
        return pasted
    rows = _linear(np.arange(upper, lower), y0, y1, len(mask))
    columns = _linear(np.arange(left, right), x0, x1, mask.shape[1])
    pasted[upper:lower, left:right] = rows @ mask @ columns.T >= 0.5
    return pasted


def _linear(places: np.ndarray, low: float, high: float, count: int) -> np.ndarray:
    """Weights ``(places, count)`` of a line's samples at pixels; beyond its ends it is 0."""
    at = (places + 0.5 - low) / (high - low) * count - 0.5
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(count))).astype(np.float32)


def encode_rle(mask: np.ndarray) -> dict:
    """A mask ``(height, width)`` as COCO's compressed run lengths, like ``pycocotools``."""
    flat = np.asarray(mask, bool).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff([0, *edges.tolist(), len(flat)]).tolist()
    if len(flat) and flat[0]:
        counts.insert(0, 0)  # the first run is of zeros
    text = []
    for i, count in enumerate(counts):
        rest = count - (counts[i - 2] if i > 2 else 0)
        more = True
        while more:
            low, rest = rest & 0x1F, rest >> 5
            more = rest != -1 if low & 0x10 else rest != 0
            text.append(chr((low | 0x20 if more else low) + 48))
    return {"size": list(mask.shape), "counts": "".join(text)}


def keypoints_of(heatmaps: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Keypoints ``(N, K, 3)``: x, y and score; as Detectron2's ``heatmaps_to_keypoints``.

    Args:
        heatmaps: logits ``(N, K, side, side)``.
        boxes: ``(N, 4)``, in pixels of the picture that keypoints are given in.
    """
    found = np.zeros((*heatmaps.shape[:2], 3), np.float32)
    for i, (maps, (x0, y0, x1, y1)) in enumerate(zip(heatmaps, boxes, strict=True)):
        wide, high = max(x1 - x0, 1), max(y1 - y0, 1)
        width, height = int(np.ceil(wide)), int(np.ceil(high))
        rows, columns = _cubic(height, maps.shape[1]), _cubic(width, maps.shape[2])
        for k, logits in enumerate(maps):
            grown = rows @ logits @ columns.T
            place = int(grown.argmax())
            y, x = divmod(place, width)
            shifted = np.exp(grown - grown.max())
            # Detectron2 takes the score where its softmax over the low resolution is one.
            score = shifted.flat[place] / np.exp(logits - grown.max()).sum()
            found[i, k] = (x + 0.5) * wide / width + x0, (y + 0.5) * high / height + y0, score
    return found


def _cubic(size: int, count: int) -> np.ndarray:
    """Weights ``(size, count)`` of bicubic scaling; samples beyond the ends are those at them."""
    at = (np.arange(size) + 0.5) * count / size - 0.5
    first = np.floor(at).astype(int)
    weights = np.zeros((size, count), np.float32)
    for offset in range(-1, 3):
        t = np.abs(at - (first + offset))
        near = ((_BICUBIC + 2) * t - (_BICUBIC + 3)) * t**2 + 1
        far = ((t - 5) * t + 8) * t * _BICUBIC - 4 * _BICUBIC
        np.add.at(
            weights,
            (np.arange(size), (first + offset).clip(0, count - 1)),
            np.where(t <= 1, near, far),
        )
    return weights
