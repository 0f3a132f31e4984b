"""Convolutions on kernels against exact integer references."""

import numpy as np
import pytest
import torch

from ptq_det.kernels import KernelLayer, Map, Maps, why_no_kernels

pytestmark = pytest.mark.skipif(why_no_kernels() is not None, reason=str(why_no_kernels()))

RANDOM = np.random.default_rng(0)


def ternary(shape, zeros):
    codes = RANDOM.choice(np.array([-1, 1], np.int8), shape)
    return codes * (RANDOM.random(shape) >= zeros)


def exact(codes, x, **geometry):
    """The sums, as int64."""
    x, codes = torch.from_numpy(x.astype(np.float64)), torch.from_numpy(codes.astype(np.float64))
    return torch.nn.functional.conv2d(x, codes, **geometry).numpy().astype(np.int64)


def check(codes, x, low, high, dense=False, threads=1, **geometry):
    """Sums in float32 where they are exact, and codes with scale, bias, shortcut and clamping."""
    filters = len(codes)
    want = exact(codes, x, **geometry)
    maps = Maps()
    source = Map(x.shape, low, high, maps).set(x)
    kernel = {
        name: (value, value) if isinstance(value, int) else value
        for name, value in geometry.items()
    }
    ones = np.ones(filters, np.float32)
    layer = KernelLayer(codes, ones, 0 * ones, low, high, dense=dense, **kernel)
    np.testing.assert_array_equal(layer.floats(source, threads), want.astype(np.float32))
    scale = RANDOM.uniform(0.01, 1, filters).astype(np.float32)
    bias = RANDOM.normal(0, 50, filters).astype(np.float32)
    layer = KernelLayer(codes, scale, bias, low, high, dense=dense, **kernel)
    other = RANDOM.integers(-500, 500, want.shape)
    added = Map(want.shape, -500, 500, maps).set(other)
    for relu in (0, -700):
        out = layer(source, relu, 700, maps, added, 0.5, threads)
        per_filter = (slice(None), None, None)
        real = want.astype(np.float64) * scale[per_filter] + bias[per_filter] + 0.5 * other
        np.testing.assert_allclose(out.codes(), real.clip(relu, 700), atol=0.51)
        out.free()


@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7])
def test_kernels_and_densities(kernel, zeros):
    codes = ternary((19, 13, kernel, kernel), zeros)
    x = RANDOM.integers(0, 256, (2, 13, 17, 23))
    for threads in (1, 2):
        check(codes, x, 0, 255, padding=kernel // 2, threads=threads)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"padding": 1},
        {"stride": 2, "padding": 1},
        {"stride": 3, "padding": 2},
        {"stride": (1, 2), "padding": (0, 1)},
        {"dilation": 2, "padding": 2},
        {"dilation": (1, 2), "padding": (1, 2)},
        {"padding": 3},
    ],
    ids=str,
)
def test_geometry(geometry, dense):
    codes = ternary((7, 5, 3, 3), 0.4)
    for size in ((5, 5), (9, 70), (40, 5)):
        check(codes, RANDOM.integers(-127, 128, (3, 5, *size)), -127, 127, dense, **geometry)


@pytest.mark.parametrize("size", [(1, 1), (1, 64), (64, 1), (3, 63), (2, 65)])
def test_odd_sizes(size):
    codes = ternary((65, 300, 3, 3), 0.8)
    check(codes, RANDOM.integers(0, 512, (1, 300, *size)), 0, 511, padding=1)
    check(codes, RANDOM.integers(0, 512, (1, 300, *size)), 0, 511, dense=True, padding=1)


@pytest.mark.parametrize("high", [255, 511, 1023, 4095, 32767])
@pytest.mark.parametrize("signed", [False, True])
def test_inputs_at_their_limits(high, signed):
    low = -high if signed else 0
    codes = np.ones((4, 600, 1, 1), np.int8)
    codes[1] = -1
    codes[2, ::2] = -1
    codes[3] = ternary((600, 1, 1), 0.3)
    for x in (np.full((1, 600, 3, 5), high), np.full((1, 600, 3, 5), low)):
        check(codes, x, low, high)
    # Added rows at one limit, subtracted ones at the other: the largest sums there are.
    x = np.where(codes[3] > 0, high, low) + np.zeros((1, 600, 3, 5), np.int64)
    check(codes, x, low, high)


@pytest.mark.parametrize("filters", [1, 5, 64, 130])
def test_dense_weights_of_8_bits(filters):
    codes = RANDOM.integers(-127, 128, (filters, 37, 3, 3)).astype(np.int8)
    check(codes, RANDOM.integers(0, 4096, (1, 37, 11, 13)), 0, 4095, dense=True, padding=1)


@pytest.mark.parametrize("high", [4095, 8191, 8192, 30000])
@pytest.mark.parametrize("inputs", [16, 57, 200])
def test_dense_squares_at_their_limits(high, inputs):
    """3 x 3, with fewer products where their inputs have room to grow, and in full elsewhere."""
    codes = np.full((20, inputs, 3, 3), 127, np.int8)
    codes[1] = -128
    codes[2, :, ::2] = -127
    codes[3, :, :, ::2] = -128
    codes[4:] = RANDOM.integers(-128, 128, codes[4:].shape)
    if inputs * 9 * 128 * high > 2**31 - 1:
        with pytest.raises(ValueError, match="32 bits"):
            KernelLayer(codes, *np.ones((2, 20), np.float32), -high, high, dense=True)
        return
    signs = np.where((np.indices((7, 9)).sum(0) % 2) == 0, 1, -1)
    for size in ((1, 1), (2, 3), (7, 9)):
        chess = np.broadcast_to(signs[: size[0], : size[1]], (2, inputs, *size))
        for x in (chess * high, np.full_like(chess, high), np.full_like(chess, -high)):
            check(codes, x, -high, high, dense=True, padding=1)


@pytest.mark.parametrize("size", [(3, 62), (4, 63), (5, 64), (2, 65), (6, 129)])
def test_dense_squares_of_odd_sizes(size):
    codes = RANDOM.integers(-127, 128, (33, 19, 3, 3)).astype(np.int8)
    x = RANDOM.integers(-4095, 4096, (2, 19, *size))
    for threads in (1, 2):
        check(codes, x, -4095, 4095, dense=True, threads=threads, padding=1)


def test_equal_bits_on_one_thread_two_and_again_one():
    codes = ternary((256, 256, 3, 3), 0.8)
    x = Map((1, 256, 21, 33), 0, 511, Maps()).set(RANDOM.integers(0, 512, (1, 256, 21, 33)))
    layer = KernelLayer(
        codes, np.full(256, 0.01, np.float32), np.ones(256, np.float32), 0, 511, padding=(1, 1)
    )
    first, *others = (layer(x, 0, 511, Maps(), threads=n).memory for n in (1, 2, 1, 5))
    lead = 64
    for other in others:
        np.testing.assert_array_equal(other[:, lead:], first[:, lead:])


def test_what_could_overflow_is_refused():
    ones = np.ones(1, np.float32)
    codes = np.full((1, 4096, 5, 5), 127, np.int8)
    with pytest.raises(ValueError, match="32 bits"):
        KernelLayer(codes, ones, ones, 0, 4095, dense=True)
    with pytest.raises(ValueError, match="ternary"):
        KernelLayer(codes[:, :1], ones, ones, 0, 255)
