"""Short trainings of the packaged detector: float and ternary, resumed, and in two processes."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import launch
from detectron2.utils import comm

from ..data.shapes import generate_shapes
from ..data.weights import CONFIGS_FOLDER
from ..ternary.ternarize import ternary_layers
from ..training.config_file import read_config
from ..training.processes import leave_process_group
from ..training.trainer import TernaryTrainer

__all__ = ["NARROW", "register_pictures", "train_in_two_processes", "train_resumed", "tune"]

NARROW = str(CONFIGS_FOLDER / "quick_schedules/shapes_mask_rcnn_ptq.yaml")
_SPLITS = {"train": 32, "val": 12}  # pictures


def register_pictures(folder: Path) -> None:
    """Register ``check_gpu_train`` and ``check_gpu_val``, drawn where they are not there yet."""
    for split, count in _SPLITS.items():
        name, annotations = f"check_gpu_{split}", folder / f"annotations/{split}.json"
        if not annotations.exists():
            generate_shapes(folder, split, count)
        if name in DatasetCatalog:  # of an earlier check in this process
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        register_coco_instances(name, {}, str(annotations), str(folder / split))


def tune(
    kind: str, device: str, iterations: int, folder: str
) -> tuple[TernaryTrainer, dict[str, float]]:
    """Fine-tune the packaged float model with AMP, with ternary weights or without.

    A checkpoint of the middle is left in the folder.

    Args:
        kind: "ternary", or "float".
        device: "cuda" or "cpu".
        iterations: 2 at least.
        folder: with the pictures.

    Returns:
        The trainer, behind its training, and the figures of that.
    """
    cfg = _config(device, iterations, f"{folder}/{kind}")
    cfg.TERNARY.ENABLED = kind == "ternary"
    trainer = _trained(cfg)
    result = trainer._last_eval_results
    return trainer, {
        **_losses(trainer),
        "box_AP": result["bbox"]["AP"],
        "mask_AP": result["segm"]["AP"],
    }


def train_resumed(whole: TernaryTrainer) -> dict[str, float]:
    """Go on from the checkpoint that a training left in its middle.

    Returns:
        ``start``, the iteration it went on with; ``differs``, how far its weights are from those of
        the whole training, relative; and its losses.
    """
    cfg = whole.cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR, cfg.DATASETS.TEST = f"{whole.cfg.OUTPUT_DIR}_resumed", ()
    name = f"model_{cfg.SOLVER.CHECKPOINT_PERIOD - 1:07d}.pth"
    os.makedirs(cfg.OUTPUT_DIR)
    shutil.copy(f"{whole.cfg.OUTPUT_DIR}/{name}", cfg.OUTPUT_DIR)
    Path(cfg.OUTPUT_DIR, "last_checkpoint").write_text(name)
    torch.manual_seed(123)  # as a new process has other random numbers
    trainer = _trained(cfg, resume=True)
    weights = [torch.cat([p.detach().cpu().double().flatten() for p in each.model.parameters()])
               for each in (trainer, whole)]  # fmt: skip
    return {
        "start": trainer.start_iter,
        "differs": float((weights[0] - weights[1]).norm() / weights[1].norm()),
        **_losses(trainer),
    }


def train_in_two_processes(device: str, iterations: int, folder: str) -> dict:
    """Train in two processes, each on a GPU where there are two, else on the CPU.

    Returns:
        ``backend``, what they spoke by; ``codes``, how many differ between the two; and the losses
        of the first.
    """
    on_gpus = device == "cuda" and torch.cuda.device_count() > 1
    cfg = _config("cuda" if on_gpus else "cpu", iterations, f"{folder}/processes")
    cfg.DATASETS.TEST = ()
    with _gpus_hidden(not on_gpus):
        launch(_train_one, 2, dist_url="auto", args=(cfg, folder))
    first, second = (torch.load(f"{folder}/process_{rank}.pt") for rank in (0, 1))
    codes = [each.pop("codes") for each in (first, second)]
    return {
        "codes": sum(int((codes[0][name] != codes[1][name]).sum()) for name in codes[0]),
        **first,
    }


def _train_one(cfg: CfgNode, folder: str) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    register_pictures(Path(folder))
    trainer = _trained(cfg)
    layers = ternary_layers(trainer.model)
    found = {"codes": {name: x.codes_and_value()[0].cpu() for name, x in layers.items()}}
    if comm.is_main_process():
        found |= {"backend": dist.get_backend(), **_losses(trainer)}
    torch.save(found, f"{folder}/process_{comm.get_rank()}.pt")
    leave_process_group()


def _config(device: str, iterations: int, output_dir: str) -> CfgNode:
    cfg = read_config(NARROW, [])
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED = device, True
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("check_gpu_train",), ("check_gpu_val",)
    cfg.TERNARY.FREEZE_START = 0.5  # codes are frozen at the end, where the model is rounded
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.WARMUP_ITERS = max(2, iterations), 0
    cfg.SOLVER.CHECKPOINT_PERIOD = cfg.SOLVER.MAX_ITER // 2
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR = 2, 0.0003
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SEED = 0  # what is resumed sees the same pictures
    cfg.OUTPUT_DIR = output_dir
    return cfg


def _trained(cfg: CfgNode, resume: bool = False) -> TernaryTrainer:
    trainer = TernaryTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def _losses(trainer: TernaryTrainer) -> dict[str, float]:
    losses = [value for value, _ in trainer.storage.history("total_loss").values()]
    return {"first_loss": losses[0], "last_loss": losses[-1]}


@contextmanager
def _gpus_hidden(hidden: bool) -> Iterator[None]:
    """Hide GPUs from processes that are started: Detectron2 gives each one, where it sees any."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    if hidden:
        os.environ[name] = ""
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before
        elif hidden:
            del os.environ[name]
