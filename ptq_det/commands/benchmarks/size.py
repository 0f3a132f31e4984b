"""Bytes and times of the codec beside general compressors and NNCodec, on the same codes."""

import lzma
import os
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from tabulate import tabulate
from tqdm import tqdm

from ...inference import load_packed
from ...modeling.meta_arch import build_float_model
from ...packing import decode_codes, encode_codes
from ...packing.source import packed_from_checkpoint
from ...training.config_file import read_config
from ...training.preflight import check_weights
from ...training.setting_checks import check_model_settings
from ..inputs import built_from, check_class_names

__all__ = ["benchmark_size", "compressors", "pack_five_trits", "pack_two_bits"]

_POWERS = 3 ** np.arange(5, dtype=np.uint8)


@dataclass
class Compressor:
    """One way to make bytes of the codes of all layers, and codes of the bytes.

    Attributes:
        encode: list of int8 codes, four-dimensional → list of bytes.
        decode: those bytes and the shapes of the codes → the codes.
    """

    encode: Callable[[list[np.ndarray]], list[bytes]]
    decode: Callable[[list[bytes], list[tuple]], list[np.ndarray]]


def pack_two_bits(codes: np.ndarray) -> bytes:
    """Ternary codes, four a byte."""
    fields = _padded(codes + 1, 4).astype(np.uint8)
    return (fields << np.array([0, 2, 4, 6], np.uint8)).sum(1, dtype=np.uint8).tobytes()


def unpack_two_bits(data: bytes, count: int) -> np.ndarray:
    """The reverse of :func:`pack_two_bits`."""
    fields = np.frombuffer(data, np.uint8)[:, None] >> np.array([0, 2, 4, 6], np.uint8) & 3
    return fields.reshape(-1)[:count].astype(np.int8) - 1


def pack_five_trits(codes: np.ndarray) -> bytes:
    """Ternary codes, five a byte."""
    return (_padded(codes + 1, 5) * _POWERS).sum(1, dtype=np.uint8).tobytes()


def unpack_five_trits(data: bytes, count: int) -> np.ndarray:
    """The reverse of :func:`pack_five_trits`."""
    fields = np.frombuffer(data, np.uint8)[:, None] // _POWERS % 3
    return fields.reshape(-1)[:count].astype(np.int8) - 1


def _padded(values: np.ndarray, width: int) -> np.ndarray:
    flat = values.reshape(-1).astype(np.uint8)
    return np.pad(flat, (0, -len(flat) % width)).reshape(-1, width)


def compressors() -> dict[str, Compressor | None]:
    """What is compared, by name; None for a library that is not installed."""
    ours = Compressor(
        lambda codes: [encode_codes(c) for c in codes],
        lambda data, shapes: [decode_codes(d, s) for d, s in zip(data, shapes, strict=True)],
    )
    general = {
        "zlib-9": (lambda data: zlib.compress(data, 9), zlib.decompress),
        "lzma": (lzma.compress, lzma.decompress),
        "zstd-19": _zstandard(),
    }
    packings = {
        "2-bit": (pack_two_bits, unpack_two_bits),
        "5-trit": (pack_five_trits, unpack_five_trits),
    }
    found: dict[str, Compressor | None] = {"ptq_det": ours}
    for packing, (pack, unpack) in packings.items():
        found[packing] = _general(pack, unpack, bytes, bytes)
        for name, both in general.items():
            found[f"{name} of {packing}"] = both and _general(pack, unpack, *both)
    found["NNCodec (DeepCABAC)"] = _nncodec()
    return found


def _general(pack, unpack, compress, decompress) -> Compressor:
    # All layers in one stream, so that nothing starts anew with each.
    def decode(data, shapes):
        sizes = [int(np.prod(shape)) for shape in shapes]
        flat = unpack(decompress(data[0]), sum(sizes))
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def encode(codes):
        return [compress(pack(np.concatenate([c.reshape(-1) for c in codes])))]

    return Compressor(encode, decode)


def _zstandard():
    try:
        import zstandard
    except ImportError:
        return None
    compressor = zstandard.ZstdCompressor(level=19)
    return compressor.compress, zstandard.ZstdDecompressor().decompress


def _nncodec() -> Compressor | None:
    try:
        # Its own coder on the integers, without the quantization and the file around it.
        from nncodec.extensions.deepCABAC import Decoder, Encoder, HdspMode
    except ImportError:
        return None
    unary_length, parameter_search = 10, 1  # its defaults
    off = (HdspMode.TensorOff, np.zeros(0, np.int8))

    def encode(codes):
        coded = []
        for layer in codes:
            rows = layer.reshape(len(layer), -1).astype(np.int32)
            encoder = Encoder()
            encoder.initCtxModels(unary_length, parameter_search)
            skipped = (~rows.any(1)).astype(np.int32)
            encoder.encodeLayer(rows, 0, 0, 1, 0, int(skipped.any()), skipped, *off, 0, 0)
            coded.append(encoder.finish().tobytes())
        return coded

    def decode(data, shapes):
        decoded = []
        for coded, shape in zip(data, shapes, strict=True):
            rows = np.zeros((shape[0], int(np.prod(shape[1:]))), np.int32)
            decoder = Decoder()
            stream = np.frombuffer(coded, np.uint8).copy()
            decoder.setStream(stream)
            decoder.initCtxModels(unary_length)
            decoder.decodeLayer(rows, 0, 0, 1, 0, *off, 0, 0)
            decoder.finish()
            decoded.append(rows.astype(np.int8).reshape(shape))
        return decoded

    return Compressor(encode, decode)


def benchmark_size(config_file: str, overrides: list[str], rounds: int) -> dict:
    """Code the ternary layers of a model by each compressor; time packing and loading the model.

    Args:
        config_file: config of the model.
        overrides: keys and values that override it; ``MODEL.WEIGHTS`` may be a packed file, a
            ternary checkpoint, or a float one, which is ternarized in one shot.
        rounds: how often loading is timed; medians count.

    Returns:
        Bytes and seconds, by compressor; seconds of packing and loading.

    Raises:
        InputError: the weights or a value of the config cannot be used.
        RuntimeError: a compressor does not give the codes back.
    """
    cfg = read_config(config_file, overrides)
    cfg.MODEL.DEVICE = "cpu"
    check_weights(cfg.MODEL.WEIGHTS)
    check_model_settings(cfg)
    check_class_names(cfg)
    with built_from(cfg):
        packed, _ = packed_from_checkpoint(cfg)
    codes = [layer.values for layer in packed.layers.values() if layer.kind == "ternary"]
    shapes = [c.shape for c in codes]
    figures: dict[str, dict | None] = {}
    for name, compressor in tqdm(compressors().items(), desc="compressors"):
        if compressor is None:
            figures[name] = None
            continue
        start = time.perf_counter()
        data = compressor.encode(codes)
        middle = time.perf_counter()
        back = compressor.decode(data, shapes)
        end = time.perf_counter()
        if not all(np.array_equal(a, b) for a, b in zip(codes, back, strict=True)):
            raise RuntimeError(f"{name} does not give the codes back")
        figures[name] = {
            "bytes": sum(map(len, data)),
            "encode_seconds": middle - start,
            "decode_seconds": end - middle,
        }
    timed = _time_loading(cfg, packed, rounds)

    ours = figures["ptq_det"]["bytes"]
    rows = [
        [name, "not installed: pip install -e .[benchmark]", "", "", ""]
        if figure is None
        else [
            name,
            f"{figure['bytes']}",
            f"{figure['bytes'] / ours:.3f}",
            f"{figure['encode_seconds']:.2f}",
            f"{figure['decode_seconds']:.2f}",
        ]
        for name, figure in figures.items()
    ]
    weights = sum(c.size for c in codes)
    print(f"\n{weights} codes of {len(codes)} layers")
    headers = ["coder", "bytes", "over ptq_det", "encode s", "decode s"]
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    print(
        f"\nPacking {timed['pack_seconds']:.2f} s; from file to ready model: packed "
        f"{timed['load_seconds']:.2f} s, float {timed['float_load_seconds']:.2f} s (of that "
        f"DetectionCheckpointer {timed['checkpointer_seconds']:.2f} s), "
        f"ratio {timed['load_ratio']:.2f}"
    )
    return {"weights": weights, "coders": figures, **timed}


def _time_loading(cfg, packed, rounds: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        file, checkpoint = (os.path.join(folder, name) for name in ("p.safetensors", "f.pth"))
        start = time.perf_counter()
        packed.write(file)
        pack_seconds = time.perf_counter() - start
        torch.save({"model": packed.state_dict()}, checkpoint)
        ours, theirs, alone = [], [], []
        for _ in tqdm(range(rounds), desc="loading"):
            start = time.perf_counter()
            load_packed(file, "cpu")
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            model = build_float_model(cfg)
            built = time.perf_counter()
            DetectionCheckpointer(model).load(checkpoint)
            end = time.perf_counter()
            theirs.append(end - start)
            alone.append(end - built)
            del model
    return {
        "pack_seconds": pack_seconds,
        "load_seconds": statistics.median(ours),
        "float_load_seconds": statistics.median(theirs),
        "checkpointer_seconds": statistics.median(alone),
        "load_ratio": statistics.median(o / t for o, t in zip(ours, theirs, strict=True)),
    }
