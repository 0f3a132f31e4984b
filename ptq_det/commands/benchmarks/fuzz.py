"""Forged packed files: none may crash the reader, read a path, take more than it is allowed, or
give a model that fails at its first picture."""

import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from tabulate import tabulate
from torch import nn
from tqdm import tqdm

from ...errors import InputError
from ...files import MIB
from ...inference import load_packed
from ...packing.container import Container

__all__ = ["FORGERIES", "benchmark_fuzz", "forge"]

_SECONDS, _MEMORY = 2.0, 200 * MIB  # that a refusal may take
_MARK = "forged_path"  # in the paths that forged configs name
_VALUES = (
    0, -1, 1, 3, 255, 1 << 16, 1 << 31, 1 << 62, 10**30, 1e308, float("nan"), None, True, "", "x",
    "ResNet", "../x", f"/{_MARK}/x.pkl", f"http://{_MARK}/x", [], [[]], {}, [1] * 50, "[" * 500,
    [[1] * 3000], [[1] * 60], [[[1] * 60] * 60], [1] * 25_000, -0.5, 4_194_304, "XYZ", "RRPN",
    "RotatedAnchorGenerator", "evil.PKL", "example.org",
)  # fmt: skip
_HARM = {  # values of single keys that would stall, fill or end what builds or runs the model
    "MODEL.ANCHOR_GENERATOR.SIZES": ([[1] * 3000], [[1] * 60], [1] * 60, [[1] * 9] * 900, [0]),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": ([[1] * 3000], [[1] * 60], [1] * 60, [[1e-300]]),
    "MODEL.ANCHOR_GENERATOR.ANGLES": ([[1] * 300], [1] * 60),
    "MODEL.ANCHOR_GENERATOR.NAME": ("RotatedAnchorGenerator",),
    "MODEL.PROPOSAL_GENERATOR.NAME": ("RRPN", "PrecomputedProposals"),
    "MODEL.ROI_HEADS.NAME": ("RROIHeads", "CascadeROIHeads", "Res5ROIHeads"),
    "MODEL.META_ARCHITECTURE": ("RetinaNet", "PanopticFPN", "SemanticSegmentor", "ProposalNetwork"),
    "MODEL.RPN.IN_FEATURES": (["p2"] * 60, ["p2", "p2"], ["p6", "p2"]),
    "MODEL.RPN.CONV_DIMS": ([1] * 3000, [-1] * 60),
    "MODEL.RPN.BBOX_REG_WEIGHTS": ([1, 1], [1] * 5, [0] * 4),
    "MODEL.RPN.IOU_THRESHOLDS": ([0.1] * 3000, [7, 9]),
    "MODEL.RPN.PRE_NMS_TOPK_TEST": (-1, 0, 2.5, 1 << 22),
    "MODEL.RPN.POST_NMS_TOPK_TEST": (-1, 0, 2.5, 1 << 22),
    "MODEL.RPN.NMS_THRESH": (-1, 7, float("nan")),
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": (-1, 7, float("nan"), float("inf")),
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": (0, 1 << 10, 7.5),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": (-9, 1 << 20),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("ROIAlignRotated", "ROIPool"),
    "MODEL.ROI_BOX_HEAD.NUM_FC": (-1, 100, 1 << 20),
    "MODEL.ROI_BOX_HEAD.NUM_CONV": (-1, 100, 1 << 20),
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": ([0.5] * 3000, [9]),
    "MODEL.ROI_MASK_HEAD.NUM_CONV": (-1, 100, 1 << 20),
    "MODEL.RESNETS.NUM_GROUPS": (0, 64, 1 << 20),
    "MODEL.RESNETS.DEPTH": (-1, 18, 152, 1 << 20),
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": (0, 32, 1 << 20),
    "MODEL.PIXEL_MEAN": ([], [1.0], [1.0] * 5000, ["a"] * 3),
    "MODEL.PIXEL_STD": ([], [1.0], [0.0] * 3, [-1.0] * 3),
    "INPUT.FORMAT": ("XYZ", "P", "bgr", ""),
    "INPUT.MASK_FORMAT": ("rle", ""),
    "INPUT.MIN_SIZE_TEST": (-5, 1 << 14, 1 << 22, 0.5),
    "INPUT.MAX_SIZE_TEST": (-5, 0, 1 << 17, 1 << 22),
    "TEST.DETECTIONS_PER_IMAGE": (-7, 0, 2.5, 1 << 22),
}  # fmt: skip


def benchmark_fuzz(path: str, files: int, workers: int, seed: int) -> dict:
    """Forge packed files from an honest one, load each, and count what became of them.

    All but raw damage have valid digests. Workers are used again for many files, so that what one
    leaves behind meets the next.

    Args:
        path: an honest packed file, best a narrow one.
        files: how many to forge.
        workers: processes.
        seed: of the forgeries.

    Returns:
        Numbers of files loaded and refused, and the worst seconds and MiB of a refusal.

    Raises:
        RuntimeError: a file crashed a worker, ended in another error than a refusal, made it open a
            forged path, took more than a refusal may, or gave a model that fails at a picture.
    """
    content = Container.read(path)
    counts, worst, faults = Counter(), [0.0, 0.0], []
    with tempfile.TemporaryDirectory() as folder:
        jobs = [(content, folder, seed + i) for i in range(files)]
        with multiprocessing.get_context("spawn").Pool(workers, _start) as pool:
            for found in tqdm(pool.imap_unordered(_load, jobs, chunksize=8), "forged", files):
                name, outcome, seconds, memory, number = found
                counts[name, outcome] += 1
                if outcome == "refused":
                    worst = [max(worst[0], seconds), max(worst[1], memory)]
                slow = seconds > _SECONDS or memory > _MEMORY
                if outcome not in ("refused", "loaded") or slow:
                    faults.append(f"{name} {number}: {outcome}, {seconds:.1f} s, {memory} bytes")
    names = sorted({name for name, _ in counts})
    rows = [[name, counts[name, "loaded"], counts[name, "refused"]] for name in names]
    print(tabulate(rows, ["forgery", "loaded", "refused"], tablefmt="github"))
    print(f"worst refusal: {worst[0]:.2f} s, {worst[1] / MIB:.0f} MiB")
    if faults:
        raise RuntimeError(f"{len(faults)} faults:\n" + "\n".join(faults[:20]))
    loaded = sum(count for (_, outcome), count in counts.items() if outcome == "loaded")
    return {
        "files": files,
        "loaded": loaded,
        "refused": files - loaded,
        "worst_seconds": worst[0],
        "worst_mib": worst[1] / MIB,
    }


def forge(content: Container, seed: int) -> tuple[str, Container]:
    """A kind of forgery and a container changed by it."""
    rng = random.Random(seed)
    copy = Container(dict(content.tensors), dict(content.metadata))
    name = rng.choice(list(FORGERIES))
    for _ in range(rng.choice((1, 1, 2, 5))):
        FORGERIES[name](copy, rng)
    return name, copy


def _change_json(key: str) -> Callable:
    def change(content: Container, rng: random.Random) -> None:
        value = yaml.safe_load(content.metadata[key])  # JSON is YAML; so are old configs
        content.metadata[key] = json.dumps(_changed(value, rng))

    return change


def _changed(value, rng: random.Random):
    """A JSON value with one part of it replaced, removed or added."""
    if isinstance(value, dict) and value and rng.random() < 0.95:
        key = rng.choice(list(value))
        action = rng.random()
        if action < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if action < 0.2:
            return {**value, rng.choice(list(value)) + "x": rng.choice(_VALUES)}
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        i = rng.randrange(len(value))
        return [*value[:i], _changed(value[i], rng), *value[i + 1 :]]
    if type(value) is int and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 7, 1 << 20))
    return rng.choice(_VALUES)


def _harm(content: Container, rng: random.Random) -> None:
    config = yaml.safe_load(content.metadata["config"])
    if not isinstance(config, dict):
        return
    for name in rng.sample(list(_HARM), rng.choice((1, 1, 2, 3))):
        *nodes, key = name.split(".")
        node = config
        for each in nodes:
            node = node.setdefault(each, {})
        node[key] = rng.choice(_HARM[name])
    content.metadata["config"] = json.dumps(config)


def _json_config(content: Container, rng: random.Random) -> None:
    depth, width = rng.choice((3, 14, 15, 16, 17, 900, 40_000)), rng.choice((1, 5_000, 30_000))
    inner = ",".join("1" * width)
    key = rng.choice(('"X"', '"PIXEL_MEAN"', '"RPN"', '"MODEL"'))
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    nested = opening * depth + (inner if opening == "[" else "1") + closing * depth
    content.metadata["config"] = '{"MODEL":{' + key + ":" + nested + "}}"


def _class_list(content: Container, rng: random.Random) -> None:
    names = json.loads(content.metadata["classes"])
    if not isinstance(names, list):
        return
    new = (names[:1], names[:-1], [*names, "x"], names[:1] * 900, ["\ud83d"], [""] * len(names))
    content.metadata["classes"] = json.dumps(rng.choice(new))


def _shapes(content: Container, rng: random.Random) -> None:
    layers = json.loads(content.metadata["layers"])
    layer = layers[rng.choice(list(layers))]
    shape = layer.get("shape")
    if isinstance(shape, list) and shape:
        shape[rng.randrange(len(shape))] = rng.choice((1, 2, 64, 1 << 15, 1 << 30))
    content.metadata["layers"] = json.dumps(layers)


def _yaml_config(content: Container, rng: random.Random) -> None:
    depth, width = rng.randrange(1, 12), rng.randrange(1, 12)
    lines = ["a0: &a0 [x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, depth)]
    lines += ["MODEL: {MASK_ON: true}", "b: " + "[" * depth * 20]
    content.metadata["config"] = "\n".join(rng.sample(lines, len(lines)))


def _bytes_of_tensor(content: Container, rng: random.Random) -> None:
    name = rng.choice(list(content.tensors))
    tensor = content.tensors[name].copy()
    if tensor.size:
        raw = tensor.reshape(-1).view(np.uint8)
        start = 0 if rng.random() < 0.5 else rng.randrange(len(raw))
        for i in range(start, min(len(raw), start + rng.choice((1, 3, 20)))):
            raw[i] = rng.randrange(256)
    content.tensors[name] = tensor


def _form_of_tensor(content: Container, rng: random.Random) -> None:
    name = rng.choice(list(content.tensors))
    tensor = content.tensors[name]
    content.tensors[name] = rng.choice(
        (tensor[:1], tensor[:0], tensor.astype(np.float64), np.tile(tensor, 2), tensor.reshape(-1))
    )


def _names_of_tensors(content: Container, rng: random.Random) -> None:
    name = rng.choice(list(content.tensors))
    content.tensors[rng.choice((f"{name}x", "", "x.codes", name))] = content.tensors.pop(name)


def _texts(content: Container, rng: random.Random) -> None:
    key = rng.choice(list(content.metadata))
    text = content.metadata[key]
    start = rng.randrange(len(text) + 1)
    new = rng.choice(("", "[", "{", '"', "\\u0000", "9" * 5000, "[" * 5000, f"/{_MARK}"))
    content.metadata[key] = text[:start] + new + text[start + rng.randrange(20) :]


FORGERIES: dict[str, Callable[[Container, random.Random], None]] = {
    "config": _change_json("config"),
    "config in YAML": _yaml_config,
    "config in JSON": _json_config,
    "harmful values": _harm,
    "number of classes": _class_list,
    "layers": _change_json("layers"),
    "shapes": _shapes,
    "architecture": _change_json("architecture"),
    "classes": _change_json("classes"),
    "ranges": _change_json("ranges"),
    "texts": _texts,
    "bytes of a tensor": _bytes_of_tensor,
    "form of a tensor": _form_of_tensor,
    "names of tensors": _names_of_tensors,
}


def _start() -> None:
    """Of each worker: end where a forged path is opened."""

    def watch(event, arguments):
        if event in ("open", "os.open", "socket.connect") and _MARK in str(arguments):
            raise RuntimeError(f"{event} of a forged path")

    sys.addaudithook(watch)


def _load(job) -> tuple[str, str, float, int, int]:
    content, folder, number = job
    name, forged = forge(content, number)
    file = Path(folder) / f"{number}.safetensors"
    try:
        forged.write(file)
    except (InputError, ValueError, TypeError, SyntaxError, SafetensorError):
        return name, "refused", 0.0, 0, number  # what cannot be written cannot be read
    if number % 10 == 0:  # raw damage
        data = bytearray(file.read_bytes())
        data[random.Random(number).randrange(len(data))] ^= 1 << number % 8
        file.write_bytes(data)
    before, start = _forget_peak(), time.perf_counter()
    try:
        model = load_packed(file, "cpu")
        outcome = "loaded"
    except InputError:
        outcome = "refused"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {str(error)[:200]}"
    seconds, memory = time.perf_counter() - start, max(0, _memory("VmHWM") - before)
    if outcome == "loaded":
        outcome = _run(model)
    file.unlink()
    return name, outcome, seconds, memory, number


def _run(model: nn.Module) -> str:
    """What becomes of a model at a small picture: "loaded", or the error that ends it."""
    mean = getattr(model, "pixel_mean", None)
    has_proposals = getattr(model, "proposal_generator", True) is not None
    if mean is None or not has_proposals:  # a classification network; a Fast R-CNN
        return "loaded"
    try:
        with torch.no_grad():
            model([{"image": torch.full((len(mean), 64, 64), 100.0), "height": 64, "width": 64}])
    except Exception as error:
        return f"at a picture {type(error).__name__}: {str(error)[:200]}"
    return "loaded"


def _forget_peak() -> int:
    """Start the peak of this process's memory anew; bytes in use now."""
    with suppress(OSError):  # elsewhere than on Linux the peak is that of all files so far
        Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(field: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
