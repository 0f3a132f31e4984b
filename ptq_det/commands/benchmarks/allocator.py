"""Stock Detectron2 in a process whose allocator keeps the pages of freed memory.

Much of a float model's time on a virtual machine is fresh memory; a row without it says what is
gained beyond that. The allocator has to be there before a process starts, hence one of its own.
"""

import ctypes.util
import json
import os
import subprocess
import sys
import weakref

import torch
from torch import nn

from .parts import timed
from .peak_memory import load_model

__all__ = ["StockInJemalloc", "jemalloc", "variables"]


def jemalloc() -> str | None:
    """Name of the library, or None where it is not installed."""
    return ctypes.util.find_library("jemalloc")


def variables() -> dict[str, str]:
    """The environment of a process that keeps its pages."""
    kept = {"LD_PRELOAD": jemalloc(), "MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1"}
    return os.environ | kept


class StockInJemalloc(nn.Module):
    """Times predictions of a process of its own.

    Args:
        folder: with the stock model's ``m.pth`` and ``config.yaml``; pictures go through it.
    """

    def __init__(self, folder: str):
        super().__init__()
        self._folder = folder
        words = ["-W", "ignore", "-m", __spec__.name, folder, str(torch.get_num_threads())]
        self._process = subprocess.Popen(
            [sys.executable, *words],
            env=variables(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        weakref.finalize(self, self._process.kill)

    def timed(self, batch: list[dict]) -> tuple[float, dict[str, float]]:
        """As :func:`~.parts.timed`."""
        torch.save(batch, f"{self._folder}/batch.pt")
        self._process.stdin.write("predict\n")
        self._process.stdin.flush()
        seconds, parts = json.loads(self._process.stdout.readline())
        return seconds, parts


def main(folder: str, threads: str) -> None:
    """Predict what comes, a line each, until there is no more."""
    torch.set_num_threads(int(threads))
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    model = load_model("stock", "stock", f"{folder}/m.pth", folder)
    for _ in sys.stdin:
        with torch.no_grad():
            print(json.dumps(timed(model, torch.load(f"{folder}/batch.pt"))), file=answers)
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
