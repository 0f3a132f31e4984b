"""Memory of a fresh process that loads a model and predicts, for each row."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...engines import ENGINE_REGISTRY
from .allocator import StockInJemalloc, variables
from .runtimes import Runtime

__all__ = ["peak_memory"]


def peak_memory(models: dict[str, nn.Module], folder: str, batch: list[dict]) -> dict[str, float]:
    """MiB by name.

    Args:
        models: rows.
        folder: one that :func:`~.rows.save` wrote.
        batch: the picture.
    """
    torch.save(batch, f"{folder}/picture.pt")
    np.save(f"{folder}/picture.npy", batch[0]["image"].permute(1, 2, 0).byte().numpy())
    threads, found = str(torch.get_num_threads()), {}
    for name, model in models.items():
        if isinstance(model, Runtime):
            script = str(Path(__file__).with_name("peak_runtime.py"))
            words = [script, name.split()[0], model.file, f"{folder}/picture.npy", threads]
        else:
            kind = "packed" if name in ENGINE_REGISTRY else "stock"
            path = f"{folder}/m.safetensors" if kind == "packed" else f"{folder}/m.pth"
            words = ["-m", "ptq_det.commands.benchmarks.peak_memory"]
            words += [kind, name, path, folder, threads]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *words],
            capture_output=True, text=True, check=True,
            env=variables() if isinstance(model, StockInJemalloc) else os.environ,
        )  # fmt: skip
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found
