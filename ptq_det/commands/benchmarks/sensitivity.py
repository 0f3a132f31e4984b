"""What zeros cost each layer, and save in the packed file."""

import os
from dataclasses import asdict

import matplotlib.pyplot as plt
import numpy as np
from detectron2.utils.logger import setup_logger
from tabulate import tabulate

from ...errors import InputError
from ...files import MIB, replacing
from ...modeling.meta_arch import build_float_model
from ...packing.filled import load_filled
from ...settings import TernarySettings
from ...sizing.sensitivity import LayerSensitivity
from ...sizing.target import measure_layers, observe_layers
from ...ternary.ternarize import ternarize
from ...training.config_file import read_config
from ...training.preflight import preflight
from ...training.trainer import TernaryTrainer
from ..inputs import built_from, check_target

__all__ = ["benchmark_sensitivity", "sensitivity_table"]

_SHOWN = (0.5, 0.68, 0.8, 0.89, 0.95)  # sparsities of the table


def benchmark_sensitivity(config_file: str, opts: list[str], plot: str | None = None) -> list[dict]:
    """Print error and bytes of each ternary layer of ``MODEL.WEIGHTS`` at several zeros.

    Args:
        config_file: of a ternary model; its training pictures are what errors are measured on.
        opts: overrides of the config.
        plot: file for a picture of the curves, PNG.

    Returns:
        The curves of each layer.

    Raises:
        InputError: a value of the config, or what it names, cannot be used.
    """
    cfg = read_config(config_file, opts)
    cfg.freeze()
    setup_logger(name="ptq_det")
    preflight(cfg)
    settings = TernarySettings.from_cfg(cfg)
    if not settings.build_quantizer().follows_sparsity:
        raise InputError(f"{settings.quantizer} does not follow a sparsity; set TERNARY.QUANTIZER")
    if plot is not None:
        check_target(plot)
    with built_from(cfg):
        model = build_float_model(cfg)
        ternarize(model, cfg)
        load_filled(model, cfg)
    curves = measure_layers(model, observe_layers(model, TernaryTrainer.build_train_loader(cfg)))
    print(sensitivity_table(curves))
    if plot is not None:
        _draw(curves, plot)
    return [asdict(curve) for curve in curves]


def sensitivity_table(curves: list[LayerSensitivity]) -> str:
    """A row a layer: weights, and error (of all layers at 80 % zeros: 1,000) and KiB by zeros."""
    whole = sum(np.interp(0.8, each.sparsities, each.errors) for each in curves) or 1.0
    rows = [
        [
            each.name,
            each.weights,
            *(f"{1000 * np.interp(s, each.sparsities, each.errors) / whole:.1f}" for s in _SHOWN),
            *(f"{np.interp(s, each.sparsities, each.sizes) / 1024:.0f}" for s in _SHOWN),
        ]
        for each in curves
    ]
    zeros = [f"{100 * s:.0f} %" for s in _SHOWN]
    headers = ["layer", "weights", *(f"error {z}" for z in zeros), *(f"KiB {z}" for z in zeros)]
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    return f"{table}\n\nErrors: in thousandths of that of all layers with 80 % zeros."


def _draw(curves: list[LayerSensitivity], path: str | os.PathLike) -> None:
    """Error over bytes of the largest layers."""
    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    for each in sorted(curves, key=lambda curve: -curve.weights)[:12]:
        axes.plot(np.array(each.sizes) / MIB, each.errors, marker=".", label=each.name)
    axes.set(xlabel="MiB of the codes", ylabel="error", xscale="log", yscale="log")
    axes.legend(fontsize="x-small")
    with replacing(path) as scratch:
        figure.savefig(scratch, format="png", dpi=120)
    plt.close(figure)
