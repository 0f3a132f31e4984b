import hashlib

import numpy as np
import pytest

from ptq_det.packing import CodecError, decode_codes, encode_codes

RNG = np.random.default_rng(0)


def random_codes(shape, p=(0.1, 0.8, 0.1)):
    return RNG.choice(np.array([-1, 0, 1], np.int8), size=shape, p=p)


def entropy_bytes(codes):
    p = np.array([(codes == v).mean() for v in (-1, 0, 1)])
    return -(p[p > 0] * np.log2(p[p > 0])).sum() * codes.size / 8


CASES = {
    "kernel": lambda: random_codes((24, 17, 3, 3)),
    "matrix": lambda: random_codes((33, 65, 1, 1)),
    "tall kernel": lambda: random_codes((5, 4, 7, 1)),
    "wide kernel": lambda: random_codes((5, 4, 2, 6)),
    "large dense kernel": lambda: random_codes((3, 4, 13, 15), (0.45, 0.1, 0.45)),
    "channels of all densities": lambda: (
        RNG.random((40, 40, 3, 3)) < np.linspace(0, 1, 40).reshape(-1, 1, 1, 1) ** 8
    ).astype(np.int8),
    "one": lambda: random_codes((1, 1, 1, 1)),
    "zeros": lambda: np.zeros((9, 8, 3, 3), np.int8),
    "ones": lambda: np.ones((9, 8, 3, 3), np.int8),
    "no zeros": lambda: random_codes((30, 30, 3, 3), (0.5, 0.0, 0.5)),
    "no inputs": lambda: np.zeros((3, 0, 3, 3), np.int8),
    "nothing": lambda: np.zeros((0, 0, 1, 1), np.int8),
    "four bits": lambda: RNG.integers(-7, 8, (12, 9, 3, 3), dtype=np.int8),
    "eight bits": lambda: RNG.integers(-127, 128, (12, 9, 1, 1), dtype=np.int8),
    "two magnitudes far apart": lambda: 100 * random_codes((12, 9, 3, 3)) + 0,
    "fortran order": lambda: np.asfortranarray(random_codes((12, 9, 3, 3))),
}


@pytest.mark.parametrize("case", CASES)
def test_codes_come_back(case):
    codes = CASES[case]()
    decoded = decode_codes(encode_codes(codes), codes.shape)
    assert decoded.dtype == np.int8 and np.array_equal(decoded, codes)


def test_the_bytes_are_those_of_version_1():
    y, x = np.mgrid[:6, :40]
    rows, columns = np.mgrid[:40, :60]
    kernel = np.stack([(y * x + 3 * k) % 5 for k in range(9)], -1).reshape(6, 40, 3, 3) % 3 - 1
    cases = {
        "neighbours": kernel,
        "levels": np.where(rows < 20, (rows * columns) % 3 - 1, 0).reshape(40, 60, 1, 1),
        "plain": np.array([1, 0, 0, -1]).reshape(2, 2, 1, 1),
        "magnitudes": np.arange(-3, 3).reshape(2, 3, 1, 1),
    }
    digests = {
        name: hashlib.sha256(encode_codes(codes.astype(np.int8))).hexdigest()[:16]
        for name, codes in cases.items()
    }
    assert digests == {
        "neighbours": "b9ea9ff8a0f1d34f",
        "levels": "7a9773f1ca74d217",
        "plain": "402ae0df2056af06",
        "magnitudes": "673cf203e3f0eea7",
    }, "another format needs another VERSION of packing/container.py"
    schemes = [encode_codes(codes.astype(np.int8))[1] for codes in cases.values()]
    assert schemes[:3] == [3, 1, 0]


def test_magnitudes_cost_their_entropy():
    codes = np.clip(np.round(RNG.normal(0, 3, (128, 128, 1, 1))), -127, 127).astype(np.int8)
    p = np.unique(codes, return_counts=True)[1] / codes.size
    assert len(encode_codes(codes)) <= 1.01 * -(p * np.log2(p)).sum() * codes.size / 8 + 64


def test_independent_codes_cost_their_entropy():
    codes = random_codes((256, 256, 1, 1))
    assert len(encode_codes(codes)) <= 1.003 * entropy_bytes(codes) + 64


def test_dense_and_sparse_channels_are_told_apart():
    density = np.linspace(0.02, 0.6, 512)[:, None] * np.linspace(0.2, 1, 512)[None]
    codes = (RNG.random((512, 512)) < density) * RNG.choice([-1, 1], (512, 512))
    codes = codes.astype(np.int8)[:, :, None, None]
    assert len(encode_codes(codes)) < 0.96 * entropy_bytes(codes)


def test_neighbours_that_resemble_each_other_are_made_use_of():
    smooth = RNG.normal(size=(128, 128, 1, 1)) + 0.7 * RNG.normal(size=(128, 128, 3, 3))
    codes = (np.sign(smooth) * (np.abs(smooth) > 1.5)).astype(np.int8)
    assert len(encode_codes(codes)) < 0.9 * entropy_bytes(codes)


def test_zero_layers_are_almost_free():
    assert len(encode_codes(np.zeros((512, 512, 3, 3), np.int8))) < 300


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((3, 3), np.int8),
        np.zeros((3, 3, 1, 1), np.int64),
        np.full((3, 3, 1, 1), -128, np.int8),
    ],
    ids=["two dimensions", "int64", "the least int8"],
)
def test_what_is_no_code_is_refused(codes):
    with pytest.raises(ValueError, match="codes must be int8"):
        encode_codes(codes)


def test_damaged_bytes_give_an_error_or_other_codes():
    codes = random_codes((16, 16, 3, 3))
    data = encode_codes(codes)

    def differs(damaged):
        try:
            return not np.array_equal(decode_codes(damaged, codes.shape), codes)
        except CodecError:
            return True

    assert all(differs(data[:cut]) for cut in range(len(data)))
    assert differs(data + b"\0\0\0\1")
    for _ in range(300):
        damaged = bytearray(data)
        damaged[RNG.integers(len(data))] ^= 1 << RNG.integers(8)
        assert differs(bytes(damaged))
