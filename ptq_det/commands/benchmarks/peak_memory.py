"""A process that loads a model, predicts one picture and prints its peak memory in MiB."""

import resource
import sys
from pathlib import Path

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from torch import nn

from ...config import add_ternary_config
from ...files import MIB
from ...inference import load_packed
from ...modeling.meta_arch import build_float_model


def main(kind: str, name: str, path: str, folder: str, threads: str) -> None:
    """Print MiB; arguments as :func:`load_model` has them."""
    torch.set_num_threads(int(threads))
    model = load_model(kind, name, path, folder)
    with torch.no_grad():
        model(torch.load(f"{folder}/picture.pt"))
    print(_peak_mib())


def load_model(kind: str, name: str, path: str, folder: str) -> nn.Module:
    """The model of a row.

    Args:
        kind: ``"packed"``, or ``"stock"`` for Detectron2's own.
        name: of the row.
        path: weights.
        folder: with the stock model's ``config.yaml``.
    """
    if kind == "packed":
        return load_packed(path, "cpu", name)
    cfg = get_cfg()
    add_ternary_config(cfg)
    cfg.set_new_allowed(True)  # nodes of other plugins, keys of other versions
    cfg.merge_from_file(f"{folder}/config.yaml")
    model = build_float_model(cfg).eval()
    DetectionCheckpointer(model).load(path)
    return model.to(memory_format=torch.channels_last) if name == "channels-last" else model


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the process that started this one
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)  # bytes, or KiB


if __name__ == "__main__":
    main(*sys.argv[1:])
