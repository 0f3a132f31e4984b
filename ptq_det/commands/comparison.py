"""What fine-tunings of one config came to, as a table and a picture."""

from dataclasses import dataclass

import matplotlib.pyplot as plt
from tabulate import tabulate

from ..files import MIB, replacing

__all__ = ["Result", "draw_comparison", "table_of"]

_MASK_RCNN_BYTES, _SAME_MODEL = 177.8e6, 0.02
# Mark, bytes of the file as published, and AP less that of the float model; from Kill-the-Bits' and
# Permute-Quantize-Finetune's READMEs and the abstract of arXiv 2107.10998v5 (which names no task).
_PUBLISHED = {
    "Kill-the-Bits": ("kx", 6.65e6, {"bbox": 33.9 - 37.9, "segm": 30.8 - 34.6}),
    "PQF": ("k+", 6.65e6, {"bbox": 36.3 - 37.9, "segm": 33.5 - 34.6}),
    "PTQ's abstract": ("k*", 5e6, {"bbox": -2.8}),
}


@dataclass
class Result:
    """What a run came to; of a float run, the file is the model in float32.

    Attributes:
        overrides: keys and values that the run overrides.
        zeros: fraction of zeros among the codes.
        bits_per_weight: of the coded codes.
        bytes: size of the packed file.
        ap: box and mask AP by task, e.g. ``{"bbox": 23.8, "segm": 25.3}``.
    """

    name: str
    overrides: list[str]
    zeros: float
    bits_per_weight: float
    bytes: int
    ap: dict[str, float]


def table_of(results: list[Result]) -> str:
    """A row a run; differences are to the first run.

    A run whose model finds nothing at all has no AP (Detectron2 evaluates it to not a number).
    """
    first, tasks = results[0], _tasks(results)
    rows = [
        [
            result.name,
            f"{100 * result.zeros:.1f} %",
            f"{result.bits_per_weight:.2f}",
            f"{result.bytes / MIB:.2f}",
            *(f"{_ap(result, task):.1f}" for task in tasks),
            *(
                "" if result is first else f"{_ap(result, task) - _ap(first, task):+.1f}"
                for task in tasks
            ),
        ]
        for result in results
    ]
    titles = {"bbox": "box AP", "segm": "mask AP"}
    names = [titles.get(task, task) for task in tasks]
    headers = ["run", "zeros", "bits per weight", "MiB", *names]
    headers += [f"{name} to {first.name}" for name in names]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def draw_comparison(results: list[Result], path: str) -> None:
    """Write a picture of AP, as difference to the first run, against the size of the file.

    A panel a task. Runs named ``curve @ point`` (``PTQ, seed 1 @ 4 MiB``) are one curve, others
    points. Beside a Mask R-CNN R50-FPN stand the differences that others published for theirs, on
    COCO.
    """
    tasks = _tasks(results)
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(5 * len(tasks), 4), layout="constrained", squeeze=False
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        axis.axhline(0, color="gray", linestyle="--", label=results[0].name)
        for name, curve in _curves(results[1:]).items():
            sizes = [result.bytes / MIB for result in curve]
            differences = [_ap(result, task) - _ap(results[0], task) for result in curve]
            axis.plot(sizes, differences, "o-" if len(curve) > 1 else "o", label=name)
        if abs(results[0].bytes / _MASK_RCNN_BYTES - 1) < _SAME_MODEL:
            for name, (mark, size, differences) in _PUBLISHED.items():
                if task in differences:
                    label = f"{name} (COCO, published)"
                    axis.plot(size / MIB, differences[task], mark, label=label)
        axis.set(xlabel="MiB of the file", ylabel=f"{task} AP less that of {results[0].name}")
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize="small")  # the one with all published points
    with replacing(path) as scratch:
        figure.savefig(scratch, dpi=120, format="png")
    plt.close(figure)


def _curves(results: list[Result]) -> dict[str, list[Result]]:
    """Runs by the name of their curve, each curve's smallest file first."""
    curves: dict[str, list[Result]] = {}
    for result in results:
        curves.setdefault(result.name.split(" @ ")[0], []).append(result)
    return {name: sorted(curve, key=lambda each: each.bytes) for name, curve in curves.items()}


def _tasks(results: list[Result]) -> list[str]:
    """All tasks in order; a model that finds nothing is not evaluated on masks."""
    return list(dict.fromkeys(task for result in results for task in result.ap))


def _ap(result: Result, task: str) -> float:
    return result.ap.get(task, float("nan"))
