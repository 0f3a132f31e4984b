import numpy as np
import pytest

from ptq_det.packing.contexts import COUNTS, LEVELS, PLAIN, positions_of
from ptq_det.packing.plan import plan_of

RNG = np.random.default_rng(0)


def plan(codes):
    """Of codes ``(outputs, inputs, height, width)``."""
    outputs, inputs, height, width = codes.shape
    planes = codes.reshape(outputs, inputs, -1).transpose(2, 0, 1).astype(np.int8)
    return plan_of(planes, positions_of(height, width))


def test_independent_codes_are_coded_plainly():
    made = plan(RNG.choice([-1, 0, 1], (60, 50, 3, 3), p=[0.1, 0.8, 0.1]))
    assert made.scheme == PLAIN and made.units == 0 and len(made.rows) == 0
    # P(nonzero) = 0.2 and P(positive) = 0.5 in eighths of a bit
    assert made.logits[0].tolist() == pytest.approx([112, 128], abs=1)


def test_channels_of_different_density_get_levels():
    density = np.repeat([0.02, 0.5], 200)[:, None, None, None]
    made = plan((RNG.random((400, 300, 1, 1)) < density).astype(int))
    assert made.scheme == LEVELS
    # log2-odds of -5.6 and 0 are eleven steps of a half apart
    assert made.rows[200:].mean() - made.rows[:200].mean() == pytest.approx(11, abs=1)


def test_kernels_that_are_smooth_get_contexts():
    smooth = 2 * RNG.normal(size=(60, 50, 1, 1)) + RNG.normal(size=(60, 50, 3, 3))
    assert plan(np.sign(smooth) * (abs(smooth) > 2)).scheme == COUNTS
