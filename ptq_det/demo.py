"""The whole path on the built-in data: float weights, ternary fine-tuning, evaluation, picture."""

import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger
from detectron2.utils.visualizer import ColorMode, Visualizer
from tabulate import tabulate

from .config import add_ternary_config
from .convert import ternary_layers
from .engine.checkpoint import TernaryCheckpointer
from .engine.preflight import check_datasets
from .engine.trainer import TernaryTrainer
from .statistics import TernaryStatistics

__all__ = ["run_demo"]

_MIN_SCORE = 0.5  # of what is drawn
_ZOOM = 2


def run_demo(config_file: str, output: str, overrides: list[str] | None = None) -> dict:
    """Evaluate a float model, fine-tune it ternary, evaluate again; print a table of both.

    Args:
        config_file: config whose ``MODEL.WEIGHTS`` is the float model.
        output: folder for ``summary.json``, ``predictions.png`` and all that training writes.
        overrides: keys and values that override the config.

    Returns:
        What ``summary.json`` holds.
    """
    start = time.perf_counter()
    cfg = get_cfg()
    add_ternary_config(cfg)
    cfg.merge_from_file(config_file)
    cfg.merge_from_list(overrides or [])
    cfg.OUTPUT_DIR = output
    cfg.freeze()
    Path(output).mkdir(parents=True, exist_ok=True)
    for name in ("fvcore", "detectron2", "ptq_det"):
        logger = setup_logger(output, name=name)
    check_datasets(cfg.DATASETS.TRAIN + cfg.DATASETS.TEST)

    logger.info("1/4 Evaluating the float model %s", cfg.MODEL.WEIGHTS)
    float_model = build_model(cfg)
    TernaryCheckpointer(float_model).load(cfg.MODEL.WEIGHTS)
    float_ap = _average_precision(TernaryTrainer.test(cfg, float_model))

    logger.info("2/4 Fine-tuning it ternary for %d iterations", cfg.SOLVER.MAX_ITER)
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=False)
    training = time.perf_counter()
    trainer.train()
    training = time.perf_counter() - training

    logger.info("3/4 Measuring the ternary model")
    measured = TernaryStatistics.of(ternary_layers(trainer.model))
    ternary_ap = _average_precision(trainer._last_eval_results)

    logger.info("4/4 Drawing predictions")
    picture = Path(output) / "predictions.png"
    draw_side_by_side(cfg, {"float": float_model, "ternary": trainer.model}, picture)

    summary = {
        "float": float_ap,
        "ternary": {
            **ternary_ap,
            "sparsity": measured.sparsity,
            "bits_per_weight": measured.bits_per_weight,
        },
        "training_seconds": training,
        "seconds": time.perf_counter() - start,
    }
    _write(Path(output) / "summary.json", json.dumps(summary, indent=2) + "\n")
    print(_table(summary))
    print(f"Pictures: {picture}")
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
    scratch = path.with_name(f"tmp_{path.name}")
    cv2.imwrite(os.fspath(scratch), np.concatenate(rows))
    scratch.replace(path)


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
    return {f"{task}_AP": results[task]["AP"] for task in ("bbox", "segm")}


def _table(summary: dict) -> str:
    rows = []
    for name in ("float", "ternary"):
        figures = summary[name]
        ternary = name == "ternary"
        rows.append(
            [
                name,
                f"{figures['bbox_AP']:.1f}",
                f"{figures['segm_AP']:.1f}",
                f"{100 * figures['sparsity']:.1f} %" if ternary else "0 %",
                f"{figures['bits_per_weight']:.2f}" if ternary else "32",
                f"{summary['training_seconds']:.0f} s" if ternary else "",
            ]
        )
    headers = ["weights", "box AP", "mask AP", "zeros", "bits per weight", "fine-tuning"]
    table = tabulate(rows, headers, tablefmt="github", disable_numparse=True)
    return (
        f"\n{table}\n\nBits per weight: entropy of the codes, over the ternary layers. "
        f"All of it took {summary['seconds']:.0f} s."
    )


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f"tmp_{path.name}")
    scratch.write_text(text)
    scratch.replace(path)
