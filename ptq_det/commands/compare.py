"""Fine-tunes one config in several ways and compares AP and size of the packed files.

ptq-det compare --config-file C --runs runs.yaml --output output/compare MODEL.WEIGHTS W

runs.yaml maps names to overrides; differences are to the first run:
    control: [TERNARY.ENABLED, False]
    PTQ 80 %: [TERNARY.SPARSITY, 0.8]
A comparison that was stopped goes on where it was when the command is given again.
"""

import argparse
import hashlib
import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path

import yaml
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import setup_logger

from ..errors import InputError
from ..files import replacing
from ..inference.evaluation import build_for_evaluation
from ..packing.filled import load_filled
from ..packing.packed_model import PackedModel
from ..packing.report import measure_size
from ..packing.source import packed_from_checkpoint
from ..training.config_file import read_config
from ..training.preflight import preflight
from ..training.trainer import TernaryTrainer
from .comparison import Result, draw_comparison, table_of
from .inputs import IMPORT
from .mistakes import told_in_one_line

__all__ = ["compare", "main", "read_runs"]


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


def main() -> None:
    """Run by the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--import", **IMPORT)
    parser.add_argument("--runs", required=True, help="YAML file: name of a run -> overrides")
    parser.add_argument("--output", required=True, help="folder for runs, table and picture")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="overrides of all runs")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)
    with told_in_one_line():
        runs = read_runs(args.runs)
        for name in ("fvcore", "detectron2", "ptq_det"):
            setup_logger(args.output, name=name)
        results = compare(args.config_file, runs, args.opts, args.output)
        table = table_of(results)
        (Path(args.output) / "table.md").write_text(table + "\n")
        draw_comparison(results, str(Path(args.output) / "comparison.png"))
    print(f"\n{table}")


if __name__ == "__main__":
    main()
