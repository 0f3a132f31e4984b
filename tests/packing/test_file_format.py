"""A second reader, written from docs/file_format.md alone, finds the same weights."""

import hashlib
import json
import math
from pathlib import Path

import constriction
import numpy as np
import pytest
from safetensors.numpy import load_file

from ptq_det import pack_model
from ptq_det.packing import encode_codes
from ptq_det.packing.packed_model import PackedModel

RNG = np.random.default_rng(1)


def probability(logit):
    return min(65535, max(1, round(65536 / (1 + 2 ** ((128 - logit) / 8))))) / 65536


def model_of(p):
    return constriction.stream.model.Categorical(np.array(p, np.float64), perfect=False)


def read_codes(data, outputs, inputs, height, width):
    largest, scheme, units = data[0], data[1], data[2]
    pairs_left, at = int.from_bytes(data[3:5], "little"), 5
    pairs = [tuple(data[at + 2 * k : at + 2 * k + 2]) for k in range(pairs_left)]
    at += 2 * pairs_left
    magnitudes = None
    if largest > 1:
        magnitudes = np.frombuffer(data, "<u2", largest, at).astype(float)
        at += 2 * largest
    weights = []
    for _ in range(2 if scheme else 0):
        weights.append(np.frombuffer(data, np.uint8, data[at], at + 1).astype(float))
        at += 1 + data[at]
    words = np.frombuffer(data, "<u4", offset=at).astype(np.uint32)
    coder = constriction.stream.stack.AnsCoder(words)
    row_levels, column_levels = np.zeros(outputs, int), np.zeros(inputs, int)
    if scheme:
        row_levels = coder.decode(model_of(weights[0] / weights[0].sum()), outputs)
        column_levels = coder.decode(model_of(weights[1] / weights[1].sum()), inputs)

    signs = np.zeros((outputs, inputs, height, width), int)
    places = sorted(
        ((y, x) for y in range(height) for x in range(width)),
        key=lambda p: (abs(2 * p[0] - height + 1) + abs(2 * p[1] - width + 1), p),
    )
    table = {}
    block = max(1, 2**19 // inputs)
    for first in range(0, outputs, block):
        for place, (y, x) in enumerate(places):
            steps = [(v, u, abs(v - y), abs(u - x)) for v, u in places[:place]]
            beside = [(v, u) for v, u, dy, dx in steps if dy + dx == 1][:2]
            near = [(v, u) for v, u, dy, dx in steps if max(dy, dx) == 1]
            diagonal = [p for p in near if p not in beside]
            others = [(v, u) for v, u, _, _ in steps if (v, u) not in near]
            groups = {}
            for o in range(first, min(first + block, outputs)):
                for i in range(inputs):
                    a, b = [*(signs[(o, i, *p)] for p in beside), 0, 0][:2]
                    d = int(np.sign(sum(signs[(o, i, *p)] for p in diagonal)))
                    s = -1 if 3 * a + 3 * b + 2 * d < 0 else 1
                    kind = 2 * len(beside) + bool(diagonal)
                    count = min(3, sum(signs[(o, i, *p)] != 0 for p in others))
                    context = ((s * (9 * a + 3 * b + d) + 13) * 6 + kind) * 4
                    context += count if scheme == 3 else 0
                    if scheme < 2 or kind == 0:
                        context, s = 0, 1
                    level = int(row_levels[o] + column_levels[i])
                    groups.setdefault((context, level), []).append((o, i, s))
            for (context, level), members in sorted(groups.items()):
                if context not in table:
                    table[context] = pairs.pop(0)
                n = probability(min(255, table[context][0] + units * level))
                q = probability(table[context][1])
                model = model_of([n * (1 - q), 1 - n, n * q])
                for (o, i, s), symbol in zip(
                    members, coder.decode(model, len(members)), strict=True
                ):
                    signs[o, i, y, x] = s * (symbol - 1)
    if largest > 1:
        found = coder.decode(model_of(magnitudes / magnitudes.sum()), int((signs != 0).sum()))
        signs[signs != 0] *= found + 1
    assert coder.is_empty() and not pairs
    return signs


@pytest.mark.parametrize(
    ("shape", "top"), [((9, 7, 3, 3), 1), ((70, 50, 1, 1), 1), ((5, 4, 2, 5), 1), ((8, 9, 3, 3), 7)]
)
def test_codes_are_as_specified(shape, top):
    smooth = RNG.normal(size=(*shape[:2], 1, 1)) + RNG.normal(size=shape)
    smooth *= RNG.uniform(0.2, 2, (shape[0], 1, 1, 1))
    codes = np.clip(np.trunc(smooth), -top, top).astype(np.int8)
    assert np.array_equal(read_codes(encode_codes(codes), *shape), codes)


def test_every_scheme_is_as_specified():
    seen = set()
    for scale in (0.0, 0.5, 1.0, 3.0):
        smooth = scale * RNG.normal(size=(40, 30, 1, 1)) + RNG.normal(size=(40, 30, 3, 3))
        codes = (np.sign(smooth) * (abs(smooth) > 1 + scale)).astype(np.int8)
        codes[::2] *= RNG.random(codes[::2].shape) < 1 / (1 + 3 * scale)
        data = encode_codes(codes)
        seen.add(data[1])
        assert np.array_equal(read_codes(data, *codes.shape), codes)
    assert len(seen) >= 3


def test_the_file_is_as_specified(model, cfg, tmp_path):
    path = tmp_path / "m.safetensors"
    pack_model(model, cfg, path)
    expected = PackedModel.read(path).state_dict()

    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    blank = data[8 : 8 + length].replace(metadata["digest"].encode(), b"0" * 64)
    assert hashlib.sha256(blank).hexdigest() == metadata["digest"]
    tensors = load_file(path)
    for name, digest in json.loads(metadata["digests"]).items():
        assert hashlib.sha256(tensors[name].tobytes()).hexdigest()[:16] == digest

    fields = json.loads(metadata["layers"])
    for name in (
        "backbone.bottom_up.stem.conv1",
        "roi_heads.mask_head.deconv",
        "backbone.fpn_output2",
    ):
        layer = fields[name]
        shape = layer["shape"]
        filters = (*shape, 1, 1)[:4]
        if "groups" in layer:
            filters = (shape[1], shape[0], *shape[2:])  # of one group
        codes = read_codes(tensors[f"{name}.codes"].tobytes(), *filters)
        weight = (
            codes.astype(np.float32)
            * tensors[f"{name}.scale"][0].astype(np.float32)[:, None, None, None]
        )
        if "groups" in layer:
            weight = weight.transpose(1, 0, 2, 3)
        assert np.array_equal(weight.reshape(shape), expected[f"{name}.weight"].numpy())
        if "norm" in layer:
            bias = tensors[f"{name}.bias"].astype(np.float32)
            assert np.array_equal(bias, expected[f"{layer['norm']}.bias"].numpy())
            variance = expected[f"{layer['norm']}.running_var"].numpy() + np.float32(
                layer["norm_eps"]
            )
            assert np.allclose(variance, 1, atol=math.ulp(1.0) * 2**30)


def test_parameters_of_no_layer_are_as_specified():
    path = Path(__file__).parent / "files/version_3.safetensors"
    expected = PackedModel.read(path).state_dict()
    tensors, header = load_file(path), path.read_bytes()
    length = int.from_bytes(header[:8], "little")
    layers = json.loads(json.loads(header[8 : 8 + length])["__metadata__"]["layers"])
    (name,) = [name for name, fields in layers.items() if fields.get("parameter")]
    shape = layers[name]["shape"]
    rows = next(size for size in shape if size > 1)
    codes = read_codes(tensors[f"{name}.codes"].tobytes(), rows, math.prod(shape) // rows, 1, 1)
    weight = codes[:, :, 0, 0].astype(np.float32) * tensors[f"{name}.scale"].astype(np.float32).T
    assert np.array_equal(weight.reshape(shape), expected[name].numpy())
    for name in ("backbone.position_norm.weight", "backbone.rows"):
        assert np.array_equal(tensors[name], expected[name].numpy())
