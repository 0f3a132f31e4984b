import numpy as np
import pytest

from ptq_det.packing.shifts import from_shifts, to_shifts


def scales(shifts, step=0.75, dtype=np.float16):
    return (step * np.exp2(-np.asarray(shifts, np.float64))).astype(dtype).reshape(1, -1)


def test_two_shifts_in_a_byte():
    tensors = to_shifts(scales([0, 3, 15, 1, 2], step=1024.0))
    assert tensors["step"].tolist() == [1024.0] and tensors["step"].dtype == np.float16
    assert tensors["shifts"].tolist() == [0x30, 0x1F, 0x02]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("channels", [2, 3, 64, 65])
def test_round_trip(channels, dtype):
    scale = scales(np.arange(channels) % 16, 0.3, dtype)
    if dtype == np.float32:
        assert set(to_shifts(scale)) == {"step", "shifts"}
    found = from_shifts(to_shifts(scale), channels)
    assert found.dtype == scale.dtype and np.array_equal(found, scale)


@pytest.mark.parametrize(
    "scale",
    [
        scales([0, 1, 16], dtype=np.float32),
        np.array([[1.0, 0.7]], np.float32),
        np.array([[1.0, 0.0]], np.float32),
        np.array([[1.0, -0.5]], np.float32),
        np.ones((2, 4), np.float32),
        np.ones((1, 1), np.float16),
    ],
)
def test_other_scales_are_stored_whole(scale):
    assert to_shifts(scale) == {"scale": scale}
    assert from_shifts({"scale": scale}, 4) is scale


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"step": np.ones(1, np.float16)},
        {"shifts": np.zeros(2, np.uint8)},
        {"step": np.ones(2, np.float16), "shifts": np.zeros(2, np.uint8)},
        {"step": np.ones(1, np.float64), "shifts": np.zeros(2, np.uint8)},
        {"step": np.ones(1, np.float16), "shifts": np.zeros(3, np.uint8)},
        {"step": np.ones(1, np.float16), "shifts": np.zeros(2, np.int8)},
        {"step": np.ones(1), "shifts": np.zeros(2, np.uint8), "scale": np.ones((1, 4))},
    ],
)
def test_tensors_that_do_not_fit_are_refused(tensors):
    assert from_shifts(tensors, 4) is None
