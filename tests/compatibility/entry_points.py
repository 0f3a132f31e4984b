"""What users start, called as they call it: this package's tools and Detectron2's own scripts.

Detectron2's scripts are those of its repository, with the two lines ``import ptq_det`` and
``ptq_det.add_ternary_config(cfg)`` behind their ``get_cfg()``.
"""

import functools
import logging
import pickle
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import detectron2.config
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances

from ptq_det import add_ternary_config, load_packed
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing.packed_model import PackedModel
from ptq_det.packing.rounding import round_to_packed
from ptq_det.plugins import base_config
from ptq_det.ternary.ternarize import ternary_layers
from tests.conftest import REPO

from .outputs import assert_same_outputs

__all__ = ["ALSO_IN_FLOAT", "OWN", "STOCK", "Case", "train_until"]

_get_cfg = detectron2.config.get_cfg


@dataclass
class Case:
    """A kind of model with the files that its entry points hand on.

    Attributes:
        cfg: its config.
        folder: its own, empty at first.
        detectron2: folder of Detectron2's repository; None where there is none.
        picture: a picture file.
        weights: a checkpoint of a float model, for entry points that run one in place of the
            ternary model.
    """

    cfg: CfgNode
    folder: Path
    detectron2: Path | None
    picture: Path
    weights: str = ""

    def in_float(self) -> "Case":
        """The same with Detectron2 alone, behind :func:`_unpack`."""
        cfg = self.cfg.clone()
        cfg.TERNARY.ENABLED = False
        folder = self.folder / "in_float"
        folder.mkdir(exist_ok=True)
        weights = str(self.folder / "unpacked.pth")
        return Case(cfg, folder, self.detectron2, self.picture, weights)

    @property
    def config(self) -> str:
        """File with the config."""
        path = self.folder / "config.yaml"
        if not path.exists():
            path.write_text(self.cfg.dump())
        return str(path)

    @property
    def latent(self) -> str:
        """Checkpoint of latent weights, saved before codes were frozen; of random ones, as a file
        can hold them, where the model cannot be trained."""
        return self.weights or self._trained("model_0000000.pth") or self._random()

    @property
    def frozen(self) -> str:
        """Checkpoint that the packed file was made of."""
        return self.weights or self._trained("model_final.pth") or self._random()

    @property
    def packed(self) -> str:
        """Packed file that the training tool wrote, or tools/pack.py."""
        if self.weights:
            return self.weights
        file = self._trained("model_final.safetensors")
        if file is None and not (self.folder / "packed.safetensors").exists():
            _pack(self)
        return file or str(self.folder / "packed.safetensors")

    def _trained(self, name: str) -> str | None:
        path = self.folder / "tool" / name
        return str(path) if path.exists() else None

    def _random(self) -> str:
        path = self.folder / "random.pth"
        if not path.exists():
            model = build_model(self.cfg)
            round_to_packed(model, self.cfg.TERNARY.FLOAT_LAYERS)
            torch.save({"model": model.state_dict()}, path)
        return str(path)

    @property
    def input(self) -> dict:
        """The picture as models take it."""
        picture = torch.from_numpy(cv2.imread(str(self.picture))).permute(2, 0, 1)
        found = {"image": picture, "height": picture.shape[1], "width": picture.shape[2]}
        if self.cfg is not None and self.cfg.MODEL.LOAD_PROPOSALS:
            found["proposals"] = _proposals(self.cfg, picture.shape[1:])
        return found

    def run(self, script: Path, *words: str) -> None:
        """Run a script in this process; its words are those of a command line."""
        argv, path, levels = sys.argv, [*sys.path], logging.root.manager.disable
        sys.argv, sys.path[:0] = [str(script), *words], [str(script.parent)]
        detectron2.config.get_cfg = lambda: _with_node(base_config())
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"it ended with {end.code}") from end
        finally:
            sys.argv, sys.path[:] = argv, path
            logging.disable(levels)
            detectron2.config.get_cfg = _get_cfg

    def stock(self, script: str, *words: str) -> None:
        """Run a script of Detectron2's repository."""
        self.run(self.detectron2 / script, *words)


def _with_node(cfg: CfgNode) -> CfgNode:
    add_ternary_config(cfg)
    return cfg


def _proposals(cfg: CfgNode, size: tuple[int, int]) -> Instances:
    held = pickle.loads(Path(cfg.DATASETS.PROPOSAL_FILES_TEST[0]).read_bytes())
    boxes = Boxes(held["boxes"][0])
    return Instances(tuple(size), proposal_boxes=boxes, objectness_logits=torch.ones(len(boxes)))


def train_until(count: int, run: Callable, out: Path, *words: str) -> None:
    """Train two iterations; or go on, up to ``count`` of them.

    Args:
        run: runs the tool by the words of a command line.
        out: the folder that it trains into.
        words: of the command line.
    """
    run(*(["--resume"] if count > 2 else []), *words)
    done = torch.load(out / "model_final.pth", weights_only=False)["iteration"] + 1
    assert done == count, f"it has trained {done} iterations"


def _training(count: int, run: Callable, folder: str, case: Case) -> None:
    """:func:`train_until` by a tool for YAML."""
    out = case.folder / folder
    words = ["--config-file", case.config, "OUTPUT_DIR", str(out), "SOLVER.MAX_ITER", str(count)]
    train_until(count, functools.partial(run, case), out, *words)


def _evaluation(run: Callable, case: Case) -> None:
    """Latent, frozen and packed weights."""
    for weights in dict.fromkeys((case.latent, case.frozen, case.packed)):
        out = str(case.folder / "evaluated")
        words = ("--config-file", case.config, "MODEL.WEIGHTS", weights, "OUTPUT_DIR", out)
        run(case, "--eval-only", *words)


def _tool(case, *words):
    own = () if "--eval-only" in words else _SHORT
    case.run(REPO / "tools/train_net.py", *words, *own)


def _stock(case, *words):
    case.stock("tools/train_net.py", *words)


def _plain(case, *words):
    case.stock("tools/plain_train_net.py", *words)


def _pack(case):
    out = str(case.folder / "packed.safetensors")
    words = ("--config-file", case.config, "--output", out, case.latent)
    case.run(REPO / "tools/pack.py", *words)


def _load(case):
    model = load_packed(case.packed, "cpu")
    assert not ternary_layers(model)
    reference = build_model(case.cfg)
    assert ternary_layers(reference)
    DetectionCheckpointer(reference).load(case.frozen)
    assert_same_outputs(model, reference, case.input)


def _unpack(case):
    out = str(case.folder / "unpacked.pth")
    case.run(REPO / "tools/unpack.py", case.packed, out)
    cfg = base_config()
    cfg.merge_from_file(str(case.folder / "unpacked.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    model = build_float_model(cfg)
    missing = model.load_state_dict(torch.load(out)["model"], strict=False).missing_keys
    stored = PackedModel.read(case.packed).state_dict()
    assert not set(missing) & set(stored)


def _demo(case):
    out = str(case.folder / "drawn.jpg")
    words = ("--config-file", case.config, "--input", str(case.picture), "--output", out)
    case.run(REPO / "tools/demo.py", *words, "--weights", case.packed)


def _predictor(case):
    picture = torch.zeros(96, 96, 3, dtype=torch.uint8).numpy()
    for weights in (case.latent, case.packed):
        cfg = case.cfg.clone()
        cfg.MODEL.WEIGHTS = weights
        predictor = DefaultPredictor(cfg)
        assert bool(ternary_layers(predictor.model)) == (weights == case.latent)
        predictor(picture)


def _stock_demo(case):
    out = str(case.folder / "stock.jpg")
    words = ["--config-file", case.config, "--input", str(case.picture), "--output", out]
    case.stock("demo/demo.py", *words, "--opts", "MODEL.WEIGHTS", case.packed)
    assert Path(out).exists()


def _analyze(case):
    words = ["--tasks", "flop", "parameter", "structure", "--num-inputs", "1"]
    words += ["--config-file", case.config, "MODEL.WEIGHTS", case.latent]
    case.stock("tools/analyze_model.py", *words)


def _export(method, case):
    words = ["--export-method", method, "--config-file", case.config]
    words += ["--output", str(case.folder / method)]
    case.stock("tools/deploy/export_model.py", *words, "MODEL.WEIGHTS", case.latent)
    assert (case.folder / method / "model.ts").exists()


_SHORT = ("TERNARY.COMPENSATION", "1", "TERNARY.DISTILLATION", "0.0")
OWN = {
    "`tools/train_net.py`": functools.partial(_training, 2, _tool, "tool"),
    "its `--resume`": functools.partial(_training, 4, _tool, "tool"),
    "its `--eval-only`": functools.partial(_evaluation, _tool),
    "`tools/pack.py`": _pack,
    "`load_packed`": _load,
    "`tools/unpack.py`": _unpack,
    "`tools/demo.py`": _demo,
    "`DefaultPredictor`": _predictor,
}
STOCK = {
    "stock `train_net.py`": functools.partial(_training, 2, _stock, "stock"),
    "stock `--resume`": functools.partial(_training, 4, _stock, "stock"),
    "stock `--eval-only`": functools.partial(_evaluation, _stock),
    "`plain_train_net.py`": functools.partial(_training, 2, _plain, "plain"),
    "plain `--resume`": functools.partial(_training, 4, _plain, "plain"),
    "plain `--eval-only`": functools.partial(_evaluation, _plain),
    "`demo.py`": _stock_demo,
    "`analyze_model.py`": _analyze,
    "`export_model.py`, tracing": functools.partial(_export, "tracing"),
    "scripting": functools.partial(_export, "scripting"),
}
"""By the column of the table. Each takes a :class:`Case` and raises what goes wrong; those behind
the first use what it left. ``STOCK`` are scripts of Detectron2's repository."""

ALSO_IN_FLOAT = {"`tools/train_net.py`", "its `--resume`", "`DefaultPredictor`", *STOCK}
"""Those that a float model goes through too."""
