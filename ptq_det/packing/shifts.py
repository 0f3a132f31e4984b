"""Scales that are one step times powers of two: the step, and 4 bits a channel."""

import numpy as np

from .names import SCALE, SHIFTS, STEP

__all__ = ["from_shifts", "to_shifts"]

_LARGEST = 15


def to_shifts(scale: np.ndarray) -> dict[str, np.ndarray]:
    """Tensors for a scale ``(S, G)``: ``step`` and ``shifts``, or ``scale`` where it is no such.

    ``shifts`` holds the shift of channel 2i in the lower half of byte i, of 2i + 1 in the upper.
    """
    whole = {SCALE: scale}
    if scale.shape[0] != 1 or scale.shape[1] < 2 or not (scale > 0).all():
        return whole
    step = scale.max()
    with np.errstate(over="ignore", divide="ignore"):
        shifts = np.log2(step.astype(np.float64) / scale[0].astype(np.float64)).round()
    if shifts.max() > _LARGEST or not np.array_equal(_scale(step, shifts), scale):
        return whole
    shifts = np.append(shifts, 0).astype(np.uint8)[: scale.shape[1] + scale.shape[1] % 2]
    return {STEP: step.reshape(1), SHIFTS: shifts[0::2] | shifts[1::2] << 4}


def from_shifts(tensors: dict[str, np.ndarray], channels: int) -> np.ndarray | None:
    """The reverse of :func:`to_shifts`; None where the tensors do not fit each other.

    Args:
        tensors: of the layer.
        channels: number of output channels.
    """
    step, shifts = tensors.get(STEP), tensors.get(SHIFTS)
    if step is None and shifts is None:
        return tensors.get(SCALE)
    fits = step is not None and shifts is not None and SCALE not in tensors
    fits = fits and step.shape == (1,) and step.dtype in (np.float16, np.float32)
    if not fits or shifts.dtype != np.uint8 or shifts.shape != ((channels + 1) // 2,):
        return None
    each = np.stack([shifts & _LARGEST, shifts >> 4], axis=1).ravel()[:channels]
    return _scale(step[0], each)


def _scale(step: np.floating, shifts: np.ndarray) -> np.ndarray:
    exact = step.astype(np.float64) * np.exp2(-shifts.astype(np.float64))
    return exact.astype(step.dtype).reshape(1, -1)
