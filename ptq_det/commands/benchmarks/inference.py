"""Time and memory of a packed model on each engine, beside stock Detectron2."""

import statistics
import tempfile
from collections import defaultdict

import torch
from detectron2.config import CfgNode
from detectron2.data.detection_utils import read_image
from detectron2.data.transforms import ResizeTransform
from tabulate import tabulate
from torch import nn
from tqdm import tqdm

from ...config import MERGE_ERRORS
from ...data.picture_check import check_pictures
from ...engines import ENGINE_REGISTRY
from ...errors import InputError
from ...inference import calibrate_packed
from ...inference.calibration import PICTURES
from ...inference.int8.layers import saturates
from ...packing.packed_model import PackedModel
from ...training.setting_checks import building, check_model_settings
from ...training.trainer import TernaryTrainer
from ..inputs import records_of
from .allocator import StockInJemalloc
from .body import BODY, body_errors, body_seconds
from .installed import installed_mib
from .machine import cpu_name
from .memory import peak_memory
from .parts import PARTS, REST, timed
from .rows import STOCK, engine_rows, needs, runtime_rows, save, stock_rows

__all__ = ["benchmark_inference"]


def benchmark_inference(
    path: str,
    dataset: str,
    sizes: list[tuple[int, int]],
    pictures: int,
    rounds: int,
    with_ap: bool,
    overrides: list[str],
    with_runtimes: bool = False,
) -> dict:
    """Time the same pictures on each engine, in turn; print tables.

    ``stock`` is Detectron2's model in float32 with norms of its own, ``channels-last`` the same
    in that memory format, ``stock, jemalloc`` the same in a process that keeps the pages of freed
    memory, where that library is installed; the others are all registered engines, and the
    exported file on other runtimes that are installed. One that cannot run the file is left out,
    with its reason.

    Args:
        path: packed detector; calibrated on the data set first if it is not yet.
        dataset: registered data set that the pictures are from.
        sizes: heights and widths to scale them to, in pixels; the first is the headline's.
        pictures: how many.
        rounds: how often each is predicted on each engine, after one to warm up.
        with_ap: evaluate each engine on the whole data set too, at the model's own size.
        overrides: keys and values that override the model's config.
        with_runtimes: time the exported file on ONNX Runtime and OpenVINO too; it has the config of
            the file, so that nothing can be overridden then.

    Returns:
        What the last line of JSON has; times and memory are of the first size.

    Raises:
        InputError: the file or the data set cannot be used.
    """
    records = records_of(dataset)
    taken = set(STOCK) & {name for name, _ in ENGINE_REGISTRY}
    if taken:
        raise InputError(f"an engine is called {taken.pop()!r}, as a row of stock Detectron2 is")
    if with_runtimes and overrides:
        raise InputError(f"exported models have the config of the file; leave out {overrides[0]}")
    packed = PackedModel.read(path)
    if not packed.architecture.is_detector:
        raise InputError(f"{path} holds no detector")
    cfg = packed.cfg()
    try:
        cfg.merge_from_list(["MODEL.DEVICE", "cpu", *overrides])
    except MERGE_ERRORS as error:
        raise InputError(f"an override: {error}") from error
    check_model_settings(cfg)
    if not packed.ranges:
        calibrate_packed(packed, dataset)
    files = [record["file_name"] for record in records[:pictures]]
    troubles = check_pictures(records[:pictures])
    if troubles:
        raise InputError("pictures cannot be used:\n  " + "\n  ".join(troubles))
    folder = tempfile.TemporaryDirectory()  # until this function ends
    save(packed, cfg, folder.name)
    with building("stock Detectron2's model"):
        models = stock_rows(packed, cfg, folder.name)
    models |= engine_rows(packed, cfg)
    if with_runtimes:
        shown = [record["file_name"] for record in records[:PICTURES]]
        batches = [_picture(file, sizes[0], cfg) for file in shown]
        models |= runtime_rows(packed, batches, folder.name)
    results = []
    for size in sizes:
        batches = [_picture(file, size, cfg) for file in files]
        results.append(_time(models, batches, rounds, size))
    seconds, parts = results[0]
    first = _picture(files[0], sizes[0], cfg)
    errors = body_errors(models, first)
    rows = [[name, 1000 * parts[name][BODY], 100 * errors[name]] for name in errors]
    print("\nLayers before the heads, and how far from the engine float what they give is")
    print(tabulate(rows, ["engine", "ms", "% off"], floatfmt=".1f", tablefmt="github"))
    memory = peak_memory(models, folder.name, first)
    installed = {name: installed_mib(needs(name, model)) for name, model in models.items()}
    rows = [
        [name, memory[name], memory[name] / memory["stock"], installed[name]] for name in memory
    ]
    print(
        "\nPeak memory of a process that loads the model and predicts one picture, and what is "
        "installed for it, without Python itself"
    )
    headers = ["engine", "peak MiB", "over stock", "installed MiB"]
    print(tabulate(rows, headers, floatfmt=(".0f", ".0f", ".2f", ".0f"), tablefmt="github"))
    backbone = PARTS["backbone"]
    result = {
        "cpu": cpu_name(),
        "vnni": not saturates(),
        "threads": torch.get_num_threads(),
        "size": list(sizes[0]),
        "speedup": {name: seconds["stock"] / value for name, value in seconds.items()},
        "speedup_backbone": {
            name: parts["stock"][backbone] / each[backbone]
            for name, each in parts.items()
            if backbone in each
        },
        "latency_ms": {name: 1000 * value for name, value in seconds.items()},
        "body_ms": {name: 1000 * each[BODY] for name, each in parts.items()},
        "body_error": errors,
        "peak_mib": memory,
        "installed_mib": installed,
    }
    if with_ap:
        cfg.DATASETS.TEST = (dataset,)
        result["ap"] = {
            name: {task: values["AP"] for task, values in TernaryTrainer.test(cfg, model).items()}
            for name, model in models.items()
            if not isinstance(model, StockInJemalloc)  # which computes what stock does
        }
    return result


def _time(
    models: dict[str, nn.Module], batches: list, rounds: int, size: tuple[int, int]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Median seconds of a picture by engine, and median seconds of each part by engine."""
    seconds, parts = defaultdict(list), {name: defaultdict(list) for name in models}
    with torch.no_grad():
        for round_ in tqdm(range(rounds + 1), desc="rounds, the first to warm up"):
            for batch in batches:
                for name, model in models.items():
                    total, each = timed(model, batch)
                    each[BODY] = body_seconds(model, batch, each)
                    if round_:
                        seconds[name].append(total)
                        for part, value in each.items():
                            parts[name][part].append(value)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    split = {
        name: {part: statistics.median(values) for part, values in each.items()}
        for name, each in parts.items()
    }
    rows = [
        [
            name,
            1000 * median[name],
            1000 * (max(values) - min(values)),
            1 / median[name],
            median["stock"] / median[name],
        ]
        for name, values in seconds.items()
    ]
    headers = ["engine", "latency ms", "spread ms", "pictures/s", "stock over it"]
    print(f"\nPictures of {size[0]} x {size[1]}, {torch.get_num_threads()} threads")
    print(tabulate(rows, headers, floatfmt=(".0f", ".0f", ".0f", ".2f", ".2f"), tablefmt="github"))
    found = {part for each in split.values() for part in each}
    names = [part for part in [*PARTS.values(), REST, BODY] if part in found]
    rows = [[part, *(1000 * split[name].get(part, 0.0) for name in models)] for part in names]
    print("\nms by part")
    print(tabulate(rows, ["part", *models], floatfmt=".0f", tablefmt="github"))
    return median, split


def _picture(file: str, size: tuple[int, int], cfg: CfgNode) -> list[dict]:
    """A picture file as a model gets it, scaled to a height and a width."""
    image = read_image(file, cfg.INPUT.FORMAT)
    image = ResizeTransform(*image.shape[:2], *size).apply_image(image)
    tensor = torch.as_tensor(image.astype("float32").transpose(2, 0, 1).copy())
    return [{"image": tensor, "height": size[0], "width": size[1]}]
