"""What a detector needs between its layers, against PyTorch and torchvision."""

import numpy as np
import pytest
import torch
from torchvision.ops import roi_align as reference

from ptq_det.kernels import Map, Maps, roi_align, why_no_kernels

pytestmark = pytest.mark.skipif(why_no_kernels() is not None, reason=str(why_no_kernels()))

RANDOM = np.random.default_rng(0)
SHAPE = (2, 5, 9, 13)


def codes(low=0, shape=SHAPE):
    return RANDOM.integers(low, 512, shape).astype(np.int16)


def map_of(x, low=-511):
    return Map(x.shape, low, 511, Maps()).set(x)


def margins_are_zero(found):
    whole = found.memory.astype(np.int64).sum()
    assert whole == found.codes().astype(np.int64).sum()


def test_codes_come_back_and_margins_are_zero():
    x = codes(-511)
    found = map_of(x)
    np.testing.assert_array_equal(found.codes(), x)
    margins_are_zero(found)
    np.testing.assert_array_equal(found.channels(1, 3).codes(), x[:, 1:3])


@pytest.mark.parametrize("threads", [1, 2])
def test_floats_are_rounded_and_clamped(threads):
    x = RANDOM.normal(0, 100, SHAPE).astype(np.float32)
    found = Map(SHAPE, -255, 511, Maps()).set_floats(x, 4.0, threads)
    np.testing.assert_array_equal(found.codes(), np.rint(x * 4).clip(-255, 511))
    margins_are_zero(found)


@pytest.mark.parametrize(("window", "stride", "padding"), [(3, 2, 1), (1, 2, 0), (2, 2, 0)])
def test_max_pool(window, stride, padding):
    x = codes()
    found = map_of(x).max_pool(window, stride, padding, 2)
    want = torch.nn.functional.max_pool2d(torch.from_numpy(x).float(), window, stride, padding)
    np.testing.assert_array_equal(found.codes(), want.numpy())
    margins_are_zero(found)


@pytest.mark.parametrize("size", [(18, 26), (17, 25)])
def test_upsample(size):
    x = codes(-511)
    found = map_of(x).upsample(size, 2)
    want = x.repeat(2, 2).repeat(2, 3)[:, :, : size[0], : size[1]]
    np.testing.assert_array_equal(found.codes(), want)
    margins_are_zero(found)


def test_a_copy_may_be_clamped():
    x = codes(-511)
    source = map_of(x)
    np.testing.assert_array_equal(source.copy(0).codes(), x.clip(0))
    np.testing.assert_array_equal(source.copy().codes(), x)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("channels", [3, 64, 70])
@pytest.mark.parametrize(("samples", "aligned"), [(0, True), (2, True), (0, False), (3, False)])
def test_roi_align(flat, channels, samples, aligned):
    levels = [codes(-511, (2, channels, 40, 50)), codes(-511, (2, channels, 20, 25))]
    scales = [0.5, 0.25]
    corners = RANDOM.uniform(-10, 100, (37, 2))
    sizes = np.exp(RANDOM.uniform(0, 4, (37, 2)))
    sizes[:3] = [[0, 0], [0, 30], [300, 300]]  # empty ones, and one beyond the picture
    corners[3] = 1000  # outside
    picture = RANDOM.integers(0, 2, (37, 1))
    boxes = np.concatenate([picture, corners, corners + sizes], 1).astype(np.float32)
    level_of = RANDOM.integers(0, 2, 37).astype(np.int32)
    shape = (1, channels * 25, 5, 8) if flat else (37, channels, 5, 5)
    want = np.zeros((37, channels, 5, 5), np.float32)
    for level in range(2):
        chosen = level_of == level
        want[chosen] = reference(
            torch.from_numpy(levels[level]).float(),
            torch.from_numpy(boxes[chosen]),
            5,
            scales[level],
            samples,
            aligned,
        ).numpy()
    for threads in (1, 2):
        out = Map(shape, -511, 511, Maps())
        maps = [map_of(x) for x in levels]
        roi_align(maps, scales, level_of, boxes, samples, aligned, 5, out, flat, threads)
        found = out.codes()
        if flat:
            found = found.reshape(-1, 40)[:, :37].T.reshape(want.shape)
        np.testing.assert_allclose(found, want, atol=0.51)
        margins_are_zero(out)


def test_no_boxes():
    out = Map((0, 5, 7, 7), -511, 511, Maps())
    none = np.zeros((0, 5), np.float32)
    roi_align([map_of(codes())], [1.0], none[:, 0], none, 0, True, 7, out, False, 2)
    assert out.codes().shape == (0, 5, 7, 7)


def test_memory_is_used_again_and_does_not_grow():
    maps = Maps()
    for _ in range(3):
        for width in (30, 10, 50):
            one, other = (Map((1, 4, 10, width), 0, 511, maps) for _ in range(2))
            one.free()
            other.free()
    largest = Map((1, 4, 10, 50), 0, 511, Maps()).memory.nbytes
    assert 2 * largest <= maps.bytes <= 3 * largest


def test_a_small_map_does_not_take_large_memory():
    maps = Maps()
    large, small = 1 << 22, 1 << 20
    maps.give(maps.take(large))
    taken = maps.take(small)
    assert len(taken) == small and maps.bytes == 2 * large
    maps.give(taken)
    assert len(maps.take(large - 1)) == large and maps.bytes == 2 * small
    assert len(maps.take(100)) == 100  # nor does it replace any
    assert maps.bytes == 2 * small


def test_what_is_free_may_be_given_back():
    maps = Maps()
    maps.give(maps.take(1000))
    maps.clear()
    assert maps.bytes == 0
