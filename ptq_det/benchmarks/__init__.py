"""Measurements that are ratios taken in one run; ``tools/benchmark.py`` is their command line."""

from .size import benchmark_size
from .train import benchmark_train

__all__ = ["benchmark_size", "benchmark_train"]
