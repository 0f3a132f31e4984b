"""Kinds of models of lazy configs, and what trains and evaluates them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import detectron2.data.transforms as T
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyCall, LazyConfig, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.nn import functional as F

from ptq_det import load_packed, pack_model
from ptq_det.data.shapes import CLASSES
from ptq_det.data.zoo import zoo_config
from ptq_det.lazy import ternary
from ptq_det.ternary.ternarize import ternary_layers
from tests.conftest import REPO
from tests.lazy_models import (
    narrow_batch_stats,
    narrow_fcos,
    narrow_mvit,
    narrow_new_baseline,
    narrow_regnet_rcnn,
    narrow_retinanet,
    narrow_swin,
    narrow_vitdet,
)

from .entry_points import Case, train_until
from .outputs import assert_same_outputs

__all__ = ["LAZY_ENTRY_POINTS", "LAZY_KINDS", "TRAINS_LAZILY", "LazyCase", "lazy_config"]


@dataclass(frozen=True)
class LazyKind:
    """A kind of model.

    Attributes:
        build: gives the node of a narrow one; of a project's config, if it has one, else of none.
        project: the config, under Detectron2's ``projects``.
    """

    build: Callable[..., DictConfig]
    project: str = ""

    def node(self, detectron2: str | None) -> DictConfig:
        """Its model."""
        if not self.project:
            return self.build()
        return self.build(LazyConfig.load(f"{detectron2}/projects/{self.project}").model)


_VITDET = "ViTDet/configs/COCO/cascade_mask_rcnn_"
LAZY_KINDS = {
    "Mask R-CNN of `new_baselines`": LazyKind(narrow_new_baseline),
    "ViTDet": LazyKind(narrow_vitdet),
    "RetinaNet": LazyKind(narrow_retinanet),
    "FCOS": LazyKind(narrow_fcos),
    "RegNet": LazyKind(narrow_regnet_rcnn),
    "Swin": LazyKind(narrow_swin, f"{_VITDET}swin_b_in21k_50ep.py"),
    "MViTv2": LazyKind(narrow_mvit, f"{_VITDET}mvitv2_b_in21k_100ep.py"),
    "Rethinking-BatchNorm": LazyKind(
        narrow_batch_stats, "Rethinking-BatchNorm/configs/mask_rcnn_BNhead_batch_stats.py"
    ),
}
"""Narrow models by the row of the table."""


def lazy_config(
    kind: str, detectron2: str | None, in_the_model: bool, enabled: bool = True
) -> DictConfig:
    """The config of a kind; what is ternary is said by a node of its own, or by the model."""
    model = LAZY_KINDS[kind].node(detectron2)
    heads = model.get("roi_heads", model)
    heads.num_classes = len(CLASSES)
    if heads is model:
        model.test_score_thresh = 0.0  # random weights reach no other
    data = zoo_config("common/data/coco.py").dataloader
    for part, name in ((data.train, "all_train"), (data.test, "all_val")):
        part.dataset.names, part.num_workers = name, 0
        part.mapper.augmentations = [LazyCall(T.ResizeShortestEdge)(short_edge_length=64)]
    data.train.total_batch_size = 2
    data.evaluator.output_dir = "${train.output_dir}"
    data.train.mapper.update(instance_mask_format="bitmask", use_instance_mask="roi_heads" in model)
    train = zoo_config("common/train.py").train
    train.update(device="cpu", max_iter=2, eval_period=0, init_checkpoint="")
    train.checkpointer.period = 1
    optimizer = zoo_config("common/optim.py").SGD
    optimizer.lr = 1e-7
    schedule = zoo_config("common/coco_schedule.py").lr_multiplier_1x
    settings = {"sparsity": 0.7, "compensation": 1, "require_trained": False, "enabled": enabled}
    settings["freeze_start"] = 0.5  # from the second of two iterations on
    cfg = {
        "dataloader": data, "train": train, "optimizer": optimizer, "lr_multiplier": schedule
    }  # fmt: skip
    if in_the_model and enabled:
        cfg["model"] = LazyCall(ternary)(model=model, **settings)
    else:
        cfg |= {"model": model, "ternary": settings}
    return OmegaConf.create(cfg, flags={"allow_objects": True})


class LazyCase(Case):
    """A kind of model; its config is a file that builds it."""

    def __init__(self, kind: str, folder: Path, detectron2: Path | None, picture: Path):
        super().__init__(None, folder, detectron2, picture)
        self.kind = kind
        self.enabled = True

    def in_float(self) -> "LazyCase":
        """The same without ternary layers."""
        folder = self.folder / "in_float"
        folder.mkdir(exist_ok=True)
        case = LazyCase(self.kind, folder, self.detectron2, self.picture)
        case.enabled = False
        return case

    @property
    def root(self) -> str | None:
        """Folder of Detectron2's repository."""
        return self.detectron2 and str(self.detectron2.resolve())

    @property
    def input(self) -> dict:
        """A picture as the models take it: as small as those that they are trained on."""
        picture = torch.from_numpy(cv2.imread(str(self.picture))).permute(2, 0, 1)
        picture = F.interpolate(picture[None].float(), (64, 64))[0]
        return {"image": picture, "height": 64, "width": 64}

    def config_of(self, in_the_model: bool) -> str:
        """File of :func:`lazy_config`."""
        path = self.folder / f"config_{in_the_model}.py"
        path.write_text(
            "from tests.compatibility.lazy import lazy_config\n"
            "globals().update(lazy_config("
            f"{self.kind!r}, {self.root!r}, {in_the_model}, {self.enabled}))\n"
        )
        return str(path)


def _training(count: int, run: Callable, in_the_model: bool, folder: str, case: LazyCase) -> None:
    """:func:`train_until` by a tool for lazy configs."""
    out = case.folder / folder
    words = ["--config-file", case.config_of(in_the_model)]
    words += [f"train.output_dir={out}", f"train.max_iter={count}"]
    train_until(count, functools.partial(run, case), out, *words)


def _evaluation(run: Callable, in_the_model: bool, files: list[str], case: LazyCase) -> None:
    words = ["--config-file", case.config_of(in_the_model), "--eval-only"]
    words += [f"train.output_dir={case.folder / 'evaluated'}"]
    for each in files:
        run(case, *words, f"train.init_checkpoint={case.folder / each}")


def _tool(case, *words):
    case.run(REPO / "tools/lazyconfig_train_net.py", *words)


def _stock(case, *words):
    case.stock("tools/lazyconfig_train_net.py", *words)


def _reference(case: LazyCase) -> nn.Module:
    """The ternary model whose packed file there is."""
    model = instantiate(LazyConfig.load(case.config_of(True)).model)
    assert ternary_layers(model)
    DetectionCheckpointer(model).load(case.frozen)
    return model


def _pack(case):
    model, cfg = _reference(case), LazyConfig.load(case.config_of(False))
    pack_model(model, cfg, case.folder / "packed.safetensors")
    written = Path(case.packed).read_bytes()
    assert written == (case.folder / "packed.safetensors").read_bytes()


def _load(case):
    node = LazyConfig.load(case.config_of(False)).model
    model = load_packed(case.packed, "cpu", model=node)
    assert not ternary_layers(model)
    assert_same_outputs(model, _reference(case), case.input)


def _unpack(case):
    out = str(case.folder / "unpacked.pth")
    case.run(REPO / "tools/unpack.py", case.packed, out)
    model = instantiate(LazyConfig.load(case.config_of(False)).model)
    DetectionCheckpointer(model).load(out)


_TRAINED = ["tool/model_0000000.pth", "tool/model_final.pth", "tool/model_final.safetensors"]
LAZY_ENTRY_POINTS = {
    "`tools/lazyconfig_train_net.py`": functools.partial(_training, 2, _tool, False, "tool"),
    "its `--resume`": functools.partial(_training, 4, _tool, False, "tool"),
    "its `--eval-only`": functools.partial(_evaluation, _tool, False, _TRAINED),
    "`pack_model`": _pack,
    "`load_packed(…, model=…)`": _load,
    "`tools/unpack.py`": _unpack,
    "stock `lazyconfig_train_net.py`": functools.partial(_training, 2, _stock, True, "stock"),
    "stock `--resume`": functools.partial(_training, 4, _stock, True, "stock"),
    "stock `--eval-only`": functools.partial(_evaluation, _stock, True, _TRAINED[:2]),
}
"""By the column of the table; those whose names begin with stock need Detectron2's repository."""

TRAINS_LAZILY = {name for name in LAZY_ENTRY_POINTS if "train_net" in name or "--resume" in name}
"""Those that a float model goes through too."""
