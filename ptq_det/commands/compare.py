"""Several fine-tunings of one config, evaluated from their packed files: a table and a picture."""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import yaml
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from tabulate import tabulate

from ..errors import InputError
from ..files import MIB, replacing
from ..inference.evaluation import build_for_evaluation
from ..packing.filled import load_filled
from ..packing.packed_model import PackedModel
from ..packing.report import measure_size
from ..packing.source import packed_from_checkpoint
from ..training.config_file import read_config
from ..training.preflight import preflight
from ..training.trainer import TernaryTrainer

__all__ = ["Result", "compare", "draw_comparison", "read_runs", "table_of"]

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


def read_runs(path: str) -> dict[str, list[str]]:
    """Read a YAML file of runs: name → overrides of the config, ``[key, value, …]``.

    Raises:
        InputError: the file is not there, or not of that form.
    """
    try:
        runs = yaml.safe_load(Path(path).read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"runs {path!r} cannot be read: {error}") from error
    fits = isinstance(runs, dict) and runs
    if not fits or not all(isinstance(v, list) and len(v) % 2 == 0 for v in runs.values()):
        raise InputError(f"{path} must map names of runs to lists of keys and values")
    for name in map(str, runs):
        if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
            raise InputError(
                f"{path} has a run {name!r}, but a name is that of a folder in --output; take out "
                "slashes, or give it a name"
            )
    return {str(name): [str(item) for item in overrides] for name, overrides in runs.items()}


def compare(
    config_file: str, runs: dict[str, list[str]], overrides: list[str], output: str
) -> list[Result]:
    """Fine-tune and evaluate each run; what a stopped comparison has finished is kept.

    A run with ``SOLVER.MAX_ITER 0`` is not fine-tuned: its weights are ternarized in one shot, or
    with ``TERNARY.ENABLED False`` evaluated as they are.

    Args:
        config_file: config that the runs have in common.
        runs: as :func:`read_runs` gives them.
        overrides: keys and values that override the config in all runs.
        output: folder with a folder for each run.

    Raises:
        InputError: a value of a config, or what it names, cannot be used.
    """
    results = []
    cfgs = {
        name: _config(config_file, [*overrides, *own], str(Path(output) / name))
        for name, own in runs.items()
    }
    digests = {name: _refuse_other_settings(cfg) for name, cfg in cfgs.items()}
    kept = {name: _read_result(Path(cfg.OUTPUT_DIR) / "result.json") for name, cfg in cfgs.items()}
    for name, own in runs.items():
        cfg = cfgs[name]
        file = Path(cfg.OUTPUT_DIR) / "result.json"
        with replacing(_digest_file(cfg)) as scratch:
            scratch.write_text(digests[name] + "\n")
        result = kept[name]
        if result is None:
            logging.getLogger("ptq_det").info("Run %s: %s", name, " ".join(own))
            result = _run(cfg, name, [*overrides, *own])
            with replacing(file) as scratch:
                scratch.write_text(json.dumps(asdict(result), indent=1) + "\n")
        results.append(result)
    return results


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

    A panel a task. Beside a Mask R-CNN R50-FPN stand the differences that others published for
    theirs, on COCO.
    """
    tasks = _tasks(results)
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(5 * len(tasks), 4), layout="constrained", squeeze=False
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        axis.axhline(0, color="gray", linestyle="--", label=results[0].name)
        for result in results[1:]:
            difference = _ap(result, task) - _ap(results[0], task)
            axis.plot(result.bytes / MIB, difference, "o", label=result.name)
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


def _tasks(results: list[Result]) -> list[str]:
    """All tasks in order; a model that finds nothing is not evaluated on masks."""
    return list(dict.fromkeys(task for result in results for task in result.ap))


def _ap(result: Result, task: str) -> float:
    return result.ap.get(task, float("nan"))


def _config(config_file: str, overrides: list[str], output: str) -> CfgNode:
    cfg = read_config(config_file, overrides)
    cfg.OUTPUT_DIR = output
    if cfg.TERNARY.ENGINE and not cfg.TERNARY.ENABLED:
        raise InputError(
            f"TERNARY.ENGINE {cfg.TERNARY.ENGINE} runs packed files, and a run with "
            "TERNARY.ENABLED False has none; set the key in the other runs alone"
        )
    preflight(cfg, training=cfg.SOLVER.MAX_ITER > 0)
    Path(output).mkdir(parents=True, exist_ok=True)
    return cfg


def _read_result(file: Path) -> Result | None:
    """What a run that was finished before came to."""
    if not file.exists():
        return None
    try:
        result = Result(**json.loads(file.read_text()))
        ap, numbers = result.ap, (result.zeros, result.bits_per_weight, result.bytes)
        if not all(isinstance(x, (int, float)) for x in (*numbers, *ap.values())):
            raise TypeError("other kinds of values")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{file} cannot be read ({error}); remove it, and the run is evaluated again"
        ) from error
    return result


def _digest_file(cfg: CfgNode) -> Path:
    return Path(cfg.OUTPUT_DIR) / "settings.sha256"


def _refuse_other_settings(cfg: CfgNode) -> str:
    """The digest of a run's config and weights.

    Raises:
        InputError: the run's folder is of another config or of other weights, or of a run of which
            neither is known.
    """
    settings = cfg.clone()
    settings.OUTPUT_DIR = ""
    digest = hashlib.sha256(settings.dump().encode())
    if cfg.MODEL.WEIGHTS:
        with PathManager.open(cfg.MODEL.WEIGHTS.split("?")[0], "rb") as weights:
            while block := weights.read(1 << 20):
                digest.update(block)
    file = _digest_file(cfg)
    of_a_run = ("result.json", "last_checkpoint", "model_final.pth", "model_final.safetensors")
    if file.exists():
        if file.read_bytes().strip() != digest.hexdigest().encode():
            raise InputError(
                f"{cfg.OUTPUT_DIR} is the folder of a run with another config or other weights; "
                "remove it, or give the run another name"
            )
    elif any((file.parent / name).exists() for name in of_a_run):
        raise InputError(
            f"{cfg.OUTPUT_DIR} is the folder of a run whose config and weights are not known (of "
            "an earlier release, or of another tool); remove it, or give the run another name"
        )
    return digest.hexdigest()


def _run(cfg: CfgNode, name: str, overrides: list[str]) -> Result:
    packed = None
    if cfg.SOLVER.MAX_ITER == 0 and not cfg.TERNARY.ENABLED:
        model = TernaryTrainer.build_model(cfg).eval()
        load_filled(model, cfg)
        evaluated = TernaryTrainer.test(cfg, model)
    elif cfg.SOLVER.MAX_ITER == 0:
        packed, _ = packed_from_checkpoint(cfg)
        evaluated = TernaryTrainer.test(cfg, build_for_evaluation(packed, cfg))
    else:
        trainer = TernaryTrainer(cfg)
        trainer.resume_or_load(resume=True)
        trainer.train()
        evaluated, model = trainer._last_eval_results, trainer.model
        if cfg.TERNARY.ENABLED:
            packed = PackedModel.read(Path(cfg.OUTPUT_DIR) / "model_final.safetensors")
    if packed is None:
        size = 4 * sum(tensor.numel() for tensor in model.state_dict().values())
        zeros, bits = 0.0, 32.0
    else:
        report = measure_size(packed)
        size, zeros, bits = report.file_bytes, report.sparsity, report.bits_per_weight
    ap = {task: float(figures["AP"]) for task, figures in evaluated.items()}
    return Result(name, overrides, zeros, bits, size, ap)
