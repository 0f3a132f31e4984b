"""Speed of convolutions: kernels that skip zeros, beside PyTorch's."""

import time
from collections.abc import Callable

import numpy as np
import torch
from tabulate import tabulate
from torch import nn
from torch.nn.functional import conv2d
from tqdm import tqdm

from ...errors import InputError
from ...inference.int8.layers import Int8Conv2d, Int8Weights, saturates
from ...inference.ranges import Quantization
from ...kernels import KernelLayer, Kernels, Map, Maps, why_no_kernels
from .machine import cpu_name

__all__ = ["LAYERS", "ZEROS", "benchmark_kernels"]

# Inputs, outputs, kernel, height and width of layers of Mask R-CNN R50-FPN at 800 x 1333.
LAYERS = (
    (256, 256, 3, 48, 84),
    (512, 512, 3, 25, 42),
    (128, 128, 3, 50, 84),
    (64, 64, 3, 100, 168),
    (1024, 256, 1, 50, 84),
    (256, 1024, 1, 50, 84),
    (256, 64, 1, 100, 168),
    (64, 256, 1, 100, 168),
)
ZEROS = (0.5, 0.7, 0.8, 0.9)
_LARGEST = 511  # of the kernels' inputs, 9 bits
_UNITS = Quantization(1.0, 0)


def benchmark_kernels(rounds: int, threads: int, layers=LAYERS) -> dict:
    """Time layers of each kind in turn; print billions of multiply-adds a second, zeros counted.

    Args:
        rounds: how often each is run; the fastest counts.
        threads: how many.
        layers: as :data:`LAYERS`.

    Returns:
        What the last line of JSON has; speeds by layer and kind.

    Raises:
        InputError: there are no kernels here.
    """
    reason = why_no_kernels()
    if reason is not None:
        raise InputError(f"no kernels to time: {reason}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    random, speeds = np.random.default_rng(0), {}
    try:
        for layer in tqdm(layers, "layers"):
            speeds[_name(layer)] = _speeds(layer, rounds, threads, random)
    finally:
        torch.set_num_threads(before)
    kinds = list(next(iter(speeds.values())))
    rows = [[name, *each.values()] for name, each in speeds.items()]
    print(f"\n{cpu_name()}, {threads} threads, kernels for {Kernels.here().kind}: GMAC/s")
    print(tabulate(rows, ["layer", *kinds], floatfmt=".0f", tablefmt="github"))
    return {
        "cpu": cpu_name(),
        "vnni": not saturates(),
        "kernels": Kernels.here().kind,
        "threads": threads,
        "gmac_per_s": speeds,
    }


def _name(layer) -> str:
    inputs, outputs, kernel, height, width = layer
    return f"{inputs} → {outputs}, {kernel} × {kernel}, {height} × {width}"


def _speeds(layer, rounds: int, threads: int, random: np.random.Generator) -> dict[str, float]:
    inputs, outputs, kernel, height, width = layer
    shape = (outputs, inputs, kernel, kernel)
    signs = random.choice(np.array([-1, 1], np.int8), shape)
    codes = {f"{zeros:.0%} zeros": signs * (random.random(shape) >= zeros) for zeros in ZEROS}
    runs = _pytorch(shape, height, width, codes["80% zeros"])
    maps = Maps()
    x = random.integers(0, _LARGEST + 1, (1, inputs, height, width))
    source = Map(x.shape, 0, _LARGEST, maps).set(x)
    ones = np.ones(outputs, np.float32)
    for name, each in {**codes, "dense": signs}.items():
        made = KernelLayer(
            each,
            ones / inputs,
            ones,
            0,
            _LARGEST,
            padding=(kernel // 2,) * 2,
            dense=name == "dense",
        )
        runs[name] = lambda made=made: made(source, 0, _LARGEST, maps, threads=threads).free()
    best = dict.fromkeys(runs, float("inf"))
    with torch.no_grad():
        for _ in range(rounds + 1):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                best[name] = min(best[name], time.perf_counter() - start)
    products = inputs * outputs * kernel**2 * height * width
    return {name: products / seconds / 1e9 for name, seconds in best.items()}


def _pytorch(shape, height: int, width: int, codes: np.ndarray) -> dict[str, Callable[[], object]]:
    """PyTorch's convolutions of that shape."""
    outputs, inputs, kernel, _ = shape
    pad = kernel // 2
    x, weight = torch.rand(1, inputs, height, width), torch.randn(shape)
    last = [each.to(memory_format=torch.channels_last) for each in (x, weight)]
    module = nn.Conv2d(inputs, outputs, kernel, padding=pad, device="meta")
    weights = Int8Weights(torch.from_numpy(codes), torch.ones(outputs), torch.zeros(outputs))
    int8 = Int8Conv2d(weights, module, _UNITS, _UNITS, True)
    integers = (255 * last[0]).to(torch.uint8)
    return {
        "float32": lambda: conv2d(x, weight, padding=pad),
        "channels-last": lambda: conv2d(*last, padding=pad),
        "oneDNN int8": lambda: int8(integers),
    }
