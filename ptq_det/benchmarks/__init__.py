"""Measurements that are ratios taken in one run; ``tools/benchmark.py`` is their command line."""

from .inference import benchmark_inference
from .size import benchmark_size
from .train import benchmark_train

__all__ = ["benchmark_inference", "benchmark_size", "benchmark_train"]
