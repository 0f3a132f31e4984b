"""The whole path on the built-in data: float weights, fine-tuning, packed file, picture."""

import json
import math
import os
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.logger import setup_logger
from detectron2.utils.visualizer import ColorMode, Visualizer
from tabulate import tabulate

from ..engines import DEFAULT_ENGINE
from ..errors import InputError
from ..files import MIB, replacing
from ..inference.evaluation import build_for_evaluation
from ..modeling.meta_arch import build_float_model
from ..packing.filled import load_filled
from ..packing.packed_model import PackedModel
from ..ternary.statistics import TernaryStatistics
from ..ternary.ternarize import ternary_layers
from ..training.config_file import read_config
from ..training.preflight import preflight
from ..training.setting_checks import building
from ..training.trainer import TernaryTrainer

__all__ = ["run_demo"]

_MIN_SCORE = 0.5  # of what is drawn
_ZOOM = 2


def run_demo(config_file: str, output: str, overrides: list[str] | None = None) -> dict:
    """Evaluate a float model, fine-tune it ternary, pack it, evaluate the file; print a table.

    Args:
        config_file: config whose ``MODEL.WEIGHTS`` is the float model.
        output: folder for ``summary.json``, ``predictions.png`` and all that training writes.
        overrides: keys and values that override the config.

    Returns:
        What ``summary.json`` holds.

    Raises:
        InputError: a value of the config, or what it names, cannot be used.
    """
    start = time.perf_counter()
    cfg = read_config(config_file, overrides or [])
    cfg.OUTPUT_DIR = output
    cfg.freeze()
    if not cfg.TERNARY.ENABLED:
        raise InputError(
            "TERNARY.ENABLED is False, and the demo fine-tunes a ternary model; set it"
        )
    if not cfg.DATASETS.TEST:
        raise InputError(
            "DATASETS.TEST is empty, and the demo evaluates and draws; name a data set"
        )
    Path(output).mkdir(parents=True, exist_ok=True)
    for name in ("fvcore", "detectron2", "ptq_det"):
        logger = setup_logger(output, name=name)
    preflight(cfg)

    logger.info("1/4 Evaluating the float model %s", cfg.MODEL.WEIGHTS)
    with building("the model"):
        float_model = build_float_model(cfg)
    load_filled(float_model, cfg)
    float_ap = _average_precision(TernaryTrainer.test(cfg, float_model))

    logger.info("2/4 Fine-tuning it ternary for %d iterations", cfg.SOLVER.MAX_ITER)
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=False)
    training = time.perf_counter()
    trainer.train()
    training = time.perf_counter() - training

    packed_ap = _average_precision(trainer._last_eval_results)  # of the file, at the end of train

    logger.info("3/4 Evaluating the ternary model in memory, to compare with the file")
    measured = TernaryStatistics.of(ternary_layers(trainer.model)).all
    ternary_ap = _average_precision(TernaryTrainer.test(cfg, trainer.model))

    logger.info("4/4 Drawing predictions")
    picture = Path(output) / "predictions.png"
    file = Path(output) / "model_final.safetensors"
    packed = PackedModel.read(file)
    packed_model = build_for_evaluation(packed, cfg, DEFAULT_ENGINE)
    draw_side_by_side(cfg, {"float": float_model, "packed": packed_model}, picture)

    summary = {
        "float": float_ap,
        "ternary": {
            **ternary_ap,
            "sparsity": measured.sparsity,
            "bits_per_weight": measured.bits_per_weight,
        },
        "packed": {
            **packed_ap,
            "bytes": file.stat().st_size,
            "float_bytes": packed.float_bytes,
        },
        "training_seconds": training,
        "seconds": time.perf_counter() - start,
    }
    with replacing(Path(output) / "summary.json") as scratch:
        scratch.write_text(json.dumps(summary, indent=2) + "\n")
    print(_table(summary))
    print(f"Packed model: {file}\nPictures: {picture}")
    return summary


def draw_side_by_side(cfg: CfgNode, models: dict, path: Path, pictures: int = 5) -> None:
    """Write one picture: a row a model, its predictions on the first pictures of the test set."""
    dataset = cfg.DATASETS.TEST[0]
    records = DatasetCatalog.get(dataset)[:pictures]
    metadata = MetadataCatalog.get(dataset)
    rows = []
    for name, model in models.items():
        model.eval()
        row = [_label(name, records[0]["height"] * _ZOOM)]
        for record in records:
            pixels = cv2.imread(record["file_name"])
            image = pixels[:, :, ::-1] if cfg.INPUT.FORMAT == "RGB" else pixels
            tensor = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
            with torch.no_grad():
                instances = model([{"image": tensor, **_size(record)}])[0]["instances"].to("cpu")
            drawing = Visualizer(pixels[:, :, ::-1], metadata, _ZOOM, ColorMode.SEGMENTATION)
            drawn = drawing.draw_instance_predictions(instances[instances.scores > _MIN_SCORE])
            row.append(drawn.get_image()[:, :, ::-1])
        rows.append(np.concatenate(row, axis=1))
    with replacing(path) as scratch:
        cv2.imwrite(os.fspath(scratch), np.concatenate(rows))


def _size(record: dict) -> dict:
    return {"height": record["height"], "width": record["width"]}


def _label(text: str, height: int) -> np.ndarray:
    """White strip with an upright word, to stand before a row."""
    strip = np.full((28, height, 3), 255, np.uint8)
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.7, 1)
    origin = ((height - width) // 2, 20)
    cv2.putText(strip, text, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 0, 0), 1, cv2.LINE_AA)
    return cv2.rotate(strip, cv2.ROTATE_90_COUNTERCLOCKWISE)


def _average_precision(results: dict) -> dict:
    """AP of each task that was evaluated; a model without masks has none of masks."""
    return {f"{task}_AP": figures["AP"] for task, figures in results.items() if "AP" in figures}


def _table(summary: dict) -> str:
    measured, packed = summary["ternary"], summary["packed"]
    zeros, bits = f"{100 * measured['sparsity']:.1f} %", f"{measured['bits_per_weight']:.2f}"
    ratio = packed["float_bytes"] / packed["bytes"]
    sizes = {
        "float": ["0 %", "32", f"{packed['float_bytes'] / MIB:.2f}", ""],
        "ternary": [zeros, bits, "", f"{summary['training_seconds']:.0f} s"],
        "packed": [zeros, bits, f"{packed['bytes'] / MIB:.2f} (1/{ratio:.1f})", ""],
    }
    tasks = [key for key in summary["float"] if key.endswith("_AP")]
    rows = [
        [name, *(f"{summary[name].get(task, math.nan):.1f}" for task in tasks), *size]
        for name, size in sizes.items()
    ]
    titles = {"bbox_AP": "box AP", "segm_AP": "mask AP"}
    headers = ["weights", *(titles.get(task, task) for task in tasks)]
    headers += ["zeros", "bits per weight", "MiB", "fine-tuning"]
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    return (
        f"\n{table}\n\nBits per weight: entropy of the codes, over the ternary layers. "
        "The row `packed` is the file, loaded back. "
        f"All of it took {summary['seconds']:.0f} s."
    )
