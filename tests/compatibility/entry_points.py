"""What users start, called as they call it: this package's tools and Detectron2's own scripts.

Detectron2's scripts are those of its repository, with the two lines ``import ptq_det`` and
``ptq_det.add_ternary_config(cfg)`` behind their ``get_cfg()``.
"""

import functools
import logging
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import detectron2.config
import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor

from ptq_det import add_ternary_config, load_packed
from ptq_det.modeling.meta_arch import build_float_model
from ptq_det.packing.packed_model import PackedModel
from ptq_det.plugins import base_config
from ptq_det.ternary.ternarize import ternary_layers
from tests.conftest import REPO

__all__ = ["OF_DETECTRON2", "OWN", "STOCK", "Case"]

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
        """Checkpoint of latent weights, saved before codes were frozen."""
        return self.weights or str(self.folder / "tool/model_0000000.pth")

    @property
    def packed(self) -> str:
        """Packed file that the training tool wrote."""
        return self.weights or str(self.folder / "tool/model_final.safetensors")

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


def _train_and_resume(run, case: Case, folder: str, *overrides: str) -> None:
    """Two iterations, then two more."""
    out = case.folder / folder
    words = ["--config-file", case.config, "OUTPUT_DIR", str(out), *overrides]
    run(*words, "SOLVER.MAX_ITER", "2")
    run("--resume", *words, "SOLVER.MAX_ITER", "4")
    assert torch.load(out / "model_final.pth", weights_only=False)["iteration"] == 3


def _evaluate(run, case: Case) -> None:
    """Latent, frozen and packed weights."""
    frozen = case.weights or str(case.folder / "tool/model_final.pth")
    for weights in (case.latent, frozen, case.packed):
        out = str(case.folder / "evaluated")
        words = ("--config-file", case.config, "MODEL.WEIGHTS", weights, "OUTPUT_DIR", out)
        run("--eval-only", *words)


def _tool_train(case):
    tool = REPO / "tools/train_net.py"
    _train_and_resume(lambda *words: case.run(tool, *words), case, "tool", *_SHORT)


def _tool_evaluate(case):
    _evaluate(lambda *words: case.run(REPO / "tools/train_net.py", *words), case)


def _pack(case):
    out = str(case.folder / "packed.safetensors")
    words = ("--config-file", case.config, "--output", out, case.latent)
    case.run(REPO / "tools/pack.py", *words)


def _load(case):
    model = load_packed(case.packed, "cpu")
    assert not ternary_layers(model)


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


def _stock_train(case):
    run = lambda *words: case.stock("tools/train_net.py", *words)  # noqa: E731
    _train_and_resume(run, case, "stock")


def _stock_evaluate(case):
    _evaluate(lambda *words: case.stock("tools/train_net.py", *words), case)


def _plain_train(case):
    run = lambda *words: case.stock("tools/plain_train_net.py", *words)  # noqa: E731
    _train_and_resume(run, case, "plain")
    _evaluate(run, case)


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
    "`tools/train_net.py`": _tool_train,
    "its `--eval-only`": _tool_evaluate,
    "`tools/pack.py`": _pack,
    "`load_packed`": _load,
    "`tools/unpack.py`": _unpack,
    "`tools/demo.py`": _demo,
    "`DefaultPredictor`": _predictor,
}
STOCK = {
    "stock `train_net.py`": _stock_train,
    "stock `--eval-only`": _stock_evaluate,
    "`plain_train_net.py`": _plain_train,
    "`demo.py`": _stock_demo,
    "`analyze_model.py`": _analyze,
    "`export_model.py`, tracing": functools.partial(_export, "tracing"),
    "scripting": functools.partial(_export, "scripting"),
}
"""By the column of the table. Each takes a :class:`Case` and raises what goes wrong; those behind
the first use what it left. ``STOCK`` are scripts of Detectron2's repository."""

OF_DETECTRON2 = {"`DefaultPredictor`", *STOCK}
"""Those that a float model goes through too."""
