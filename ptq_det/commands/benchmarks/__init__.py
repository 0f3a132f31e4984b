"""Measurements that compare, taken in one run; ``tools/benchmark.py`` is their command line."""

from .difference import benchmark_difference
from .fuzz import benchmark_fuzz
from .inference import benchmark_inference
from .kernels import benchmark_kernels
from .sensitivity import benchmark_sensitivity
from .size import benchmark_size
from .train import benchmark_train

__all__ = [
    "benchmark_difference",
    "benchmark_fuzz",
    "benchmark_inference",
    "benchmark_kernels",
    "benchmark_sensitivity",
    "benchmark_size",
    "benchmark_train",
]
