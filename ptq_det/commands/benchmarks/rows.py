"""What the benchmark of inference compares: Detectron2's model, engines, runtimes."""

from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import nn

from ...engines import ENGINE_REGISTRY
from ...errors import EngineError
from ...inference.evaluation import build_for_evaluation
from ...modeling.meta_arch import build_float_model
from ...packing.packed_model import PackedModel
from ...ternary.ternarize import restore_classes
from .allocator import StockInJemalloc, jemalloc
from .runtimes import Runtime, runtimes

__all__ = ["JEMALLOC", "STOCK", "engine_rows", "needs", "runtime_rows", "save", "stock_rows"]

JEMALLOC = "stock, jemalloc"
STOCK = ("stock", "channels-last", JEMALLOC)


def save(packed: PackedModel, cfg: CfgNode, folder: str) -> None:
    """Write what other processes load: ``m.safetensors``, and ``m.pth`` with ``config.yaml``."""
    packed.write(f"{folder}/m.safetensors")
    torch.save({"model": packed.state_dict()}, f"{folder}/m.pth")
    Path(folder, "config.yaml").write_text(cfg.dump())


def stock_rows(packed: PackedModel, cfg: CfgNode, folder: str) -> dict[str, nn.Module]:
    """Detectron2's model in float32; ``folder`` is one that :func:`save` wrote."""
    models: dict[str, nn.Module] = {
        "stock": _stock(packed, cfg),
        "channels-last": _stock(packed, cfg).to(memory_format=torch.channels_last),
    }
    if jemalloc() is None:
        print(f"Left out: {JEMALLOC}: the library is not installed (Debian's libjemalloc2)")
    else:
        models[JEMALLOC] = StockInJemalloc(folder)
    return models


def _stock(packed: PackedModel, cfg: CfgNode) -> nn.Module:
    model = build_float_model(cfg)
    restore_classes(model)
    model.load_state_dict(packed.state_dict(), strict=False)
    return model.eval().requires_grad_(False)


def engine_rows(packed: PackedModel, cfg: CfgNode) -> dict[str, nn.Module]:
    """The model on each engine that can run it."""
    models = {}
    for name, _ in ENGINE_REGISTRY:
        try:
            models[name] = build_for_evaluation(packed, cfg, name)
        except EngineError as error:
            print(f"Left out: {error}")
    return models


def runtime_rows(
    packed: PackedModel, batches: list[list[dict]], folder: str
) -> dict[str, nn.Module]:
    """The exported model on each runtime that is installed; arguments as :func:`runtimes`'s."""
    pictures = [batch[0]["image"].permute(1, 2, 0).byte().numpy() for batch in batches]
    pictures = [np.ascontiguousarray(each) for each in pictures]
    models, left_out = runtimes(f"{folder}/m.safetensors", pictures, folder)
    for name, why in left_out.items():
        print(f"Left out: {name}: {why}")
    return models


def needs(name: str, model: nn.Module) -> list[str]:
    """Distributions that a row needs, beside what these require."""
    if isinstance(model, Runtime):
        return [name.split()[0], "numpy", "pillow", "safetensors", "constriction"]
    detectron2 = packages_distributions().get("detectron2", ())
    return ["torch", "torchvision", "pycocotools", "safetensors", "constriction", *set(detectron2)]
