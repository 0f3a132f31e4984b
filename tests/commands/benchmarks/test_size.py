import numpy as np
import pytest

from ptq_det.commands.benchmarks.size import (
    benchmark_size,
    compressors,
    pack_five_trits,
    pack_two_bits,
    unpack_five_trits,
    unpack_two_bits,
)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 20, 23])
def test_packings_come_back(count):
    codes = np.random.default_rng(0).integers(-1, 2, count, dtype=np.int8)
    assert len(pack_two_bits(codes)) == -(-count // 4)
    assert len(pack_five_trits(codes)) == -(-count // 5)
    assert np.array_equal(unpack_two_bits(pack_two_bits(codes), count), codes)
    assert np.array_equal(unpack_five_trits(pack_five_trits(codes), count), codes)


def test_every_compressor_gives_the_codes_back():
    rng = np.random.default_rng(0)
    codes = [rng.integers(-1, 2, s, dtype=np.int8) for s in ((4, 5, 3, 3), (7, 8, 1, 1))]
    shapes = [c.shape for c in codes]
    found = {name: c for name, c in compressors().items() if c is not None}
    assert {"ptq_det", "zlib-9 of 2-bit", "lzma of 5-trit"} <= set(found)
    for name, compressor in found.items():
        back = compressor.decode(compressor.encode(codes), shapes)
        assert all(np.array_equal(a, b) for a, b in zip(codes, back, strict=True)), name


def test_the_size_benchmark_measures_all(repo):
    config = str(repo / "configs/quick_schedules/shapes_mask_rcnn_ptq.yaml")
    result = benchmark_size(config, [], rounds=1)
    assert result["coders"]["ptq_det"]["bytes"] < result["coders"]["lzma of 2-bit"]["bytes"]
    assert result["load_ratio"] > 0 and result["pack_seconds"] > 0
