"""Kinds of models of lazy configs, and what trains and evaluates them."""

import functools
from pathlib import Path

import detectron2.data.transforms as T
import torch
from detectron2 import model_zoo
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall, LazyConfig, instantiate
from omegaconf import DictConfig, OmegaConf

from ptq_det import load_packed
from ptq_det.data.shapes import CLASSES
from ptq_det.lazy import ternary
from ptq_det.ternary.ternarize import ternary_layers
from tests.conftest import REPO
from tests.lazy_models import narrow_new_baseline, narrow_retinanet, narrow_vitdet

from .entry_points import Case

__all__ = ["LAZY_ENTRY_POINTS", "LAZY_KINDS", "LazyCase", "lazy_config"]

LAZY_KINDS = {
    "Mask R-CNN of `new_baselines`": narrow_new_baseline,
    "ViTDet": narrow_vitdet,
    "RetinaNet": narrow_retinanet,
}
"""Narrow models by the row of the table."""


def lazy_config(kind: str, in_the_model: bool) -> DictConfig:
    """The config of a kind; what is ternary is said by a node of its own, or by the model."""
    model = LAZY_KINDS[kind]()
    heads = model.get("roi_heads", model)
    heads.num_classes = len(CLASSES)
    data = model_zoo.get_config("common/data/coco.py").dataloader
    for part, name in ((data.train, "all_train"), (data.test, "all_val")):
        part.dataset.names, part.num_workers = name, 0
        part.mapper.augmentations = [LazyCall(T.ResizeShortestEdge)(short_edge_length=64)]
    data.train.total_batch_size = 2
    data.evaluator.output_dir = "${train.output_dir}"
    data.train.mapper.update(instance_mask_format="bitmask", use_instance_mask="roi_heads" in model)
    train = model_zoo.get_config("common/train.py").train
    train.update(device="cpu", max_iter=2, eval_period=0, init_checkpoint="")
    train.checkpointer.period = 1
    optimizer = model_zoo.get_config("common/optim.py").SGD
    optimizer.lr = 1e-7
    schedule = model_zoo.get_config("common/coco_schedule.py").lr_multiplier_1x
    settings = {"sparsity": 0.7, "compensation": 1, "require_trained": False}
    cfg = {
        "dataloader": data, "train": train, "optimizer": optimizer, "lr_multiplier": schedule
    }  # fmt: skip
    if in_the_model:
        cfg["model"] = LazyCall(ternary)(model=model, **settings)
    else:
        cfg |= {"model": model, "ternary": settings}
    return OmegaConf.create(cfg, flags={"allow_objects": True})


class LazyCase(Case):
    """A kind of model; its config is a file that builds it."""

    def __init__(self, kind: str, folder: Path, detectron2: Path | None):
        super().__init__(None, folder, detectron2, None)
        self.kind = kind

    def config_of(self, in_the_model: bool) -> str:
        """File of :func:`lazy_config`."""
        path = self.folder / f"config_{in_the_model}.py"
        path.write_text(
            "from tests.compatibility.lazy import lazy_config\n"
            f"globals().update(lazy_config({self.kind!r}, {in_the_model}))\n"
        )
        return str(path)


def _train(run, in_the_model, out, case):
    words = ["--config-file", case.config_of(in_the_model)]
    words_of = lambda most: [*words, f"train.output_dir={out}", f"train.max_iter={most}"]  # noqa: E731
    run(*words_of(2))
    run("--resume", *words_of(4))
    assert torch.load(out / "model_final.pth", weights_only=False)["iteration"] == 3


def _evaluate(run, in_the_model, weights, case):
    words = ["--config-file", case.config_of(in_the_model), "--eval-only"]
    for each in weights:
        run(*words, f"train.output_dir={case.folder / 'out'}", f"train.init_checkpoint={each}")


def _tool(case):
    return functools.partial(case.run, REPO / "tools/lazyconfig_train_net.py")


def _stock(case):
    return functools.partial(case.stock, "tools/lazyconfig_train_net.py")


def _tool_train(case):
    _train(_tool(case), False, case.folder / "tool", case)


def _tool_evaluate(case):
    _evaluate(_tool(case), False, (case.latent, case.packed), case)


def _load(case):
    node = LazyConfig.load(case.config_of(False)).model
    model = load_packed(case.packed, "cpu", model=node)
    assert not ternary_layers(model)


def _unpack(case):
    out = str(case.folder / "unpacked.pth")
    case.run(REPO / "tools/unpack.py", case.packed, out)
    model = instantiate(LazyConfig.load(case.config_of(False)).model)
    DetectionCheckpointer(model).load(out)


def _stock_train(case):
    _train(_stock(case), True, case.folder / "stock", case)
    _evaluate(_stock(case), True, (case.folder / "stock/model_0000000.pth",), case)


LAZY_ENTRY_POINTS = {
    "`tools/lazyconfig_train_net.py`": _tool_train,
    "its `--eval-only`": _tool_evaluate,
    "`load_packed(…, model=…)`": _load,
    "`tools/unpack.py`": _unpack,
    "stock `lazyconfig_train_net.py`": _stock_train,
}
"""By the column of the table; the last needs Detectron2's repository."""
