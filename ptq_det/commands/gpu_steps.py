"""Time, peak memory and waits of a training step, float and ternary, with and without AMP."""

import statistics
import time
from contextlib import nullcontext

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from torch import nn

from ..files import MIB
from ..ternary.schedule import Stage
from ..ternary.ternarize import ternary_layers
from ..training.mixed_precision import use_bfloat16
from ..training.trainer import TernaryTrainer
from .benchmarks.train import comparable_models, random_batch
from .waits import count_waits

__all__ = ["measure_steps"]


def measure_steps(cfg: CfgNode, size: tuple[int, int], batch: int, rounds: int) -> list[dict]:
    """Measure the steps of a config's model on ``MODEL.DEVICE``.

    Args:
        cfg: full config of the ternary model; the float one is the same without ternarization.
        size: height and width of the pictures, in pixels.
        batch: pictures a step.
        rounds: steps of each kind that are timed, after one to warm up.

    Returns:
        Of each ``precision`` and each kind of ``weights``: the median of the ``seconds`` of a
        step, peak ``mib`` (None on a CPU), and how often the host ``waits`` in a step.
    """
    device = cfg.MODEL.DEVICE
    data = random_batch(cfg, size, batch)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"  # one model at a time is on the device
    models = comparable_models(cfg)
    rows = []
    for precision in ("float32", "AMP"):
        for name, model in models.items():
            model.to(device)
            if precision == "AMP" and device == "cpu":
                use_bfloat16(model)
            optimizer = TernaryTrainer.build_optimizer(cfg, model)
            step = _Step(model, optimizer, data, device, precision == "AMP" and device != "cpu")
            for kind in ["float"] if name == "float" else list(Stage):
                rows.append({"precision": precision, **_measured(step, kind, rounds)})
            model.zero_grad()
            model.to("cpu")
    return rows


class _Step:
    """A step of a training that moves nothing: the config's learning rate is 0."""

    def __init__(self, model: nn.Module, optimizer, data: list[dict], device: str, scaled: bool):
        self.model, self.device = model, device
        self._optimizer, self._data = optimizer, data
        self._scaler = torch.amp.GradScaler(device, enabled=scaled)
        self._autocast = torch.autocast("cuda") if scaled else nullcontext()

    def __call__(self, seed: int) -> None:
        torch.manual_seed(seed)  # the same regions of interest for each kind
        for layer in ternary_layers(self.model).values():
            layer.forget()  # as PTQHook does
        with EventStorage(), self._autocast:  # the heads log to it
            losses = self.model(self._data)
        self._optimizer.zero_grad()
        self._scaler.scale(sum(losses.values())).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()


def _measured(step: _Step, kind: Stage | str, rounds: int) -> dict:
    on_gpu = step.device != "cpu"
    for layer in ternary_layers(step.model).values():
        layer.ternary.stage = kind
    seconds = []
    for seed in range(rounds + 1):
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        step(seed)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    mib = torch.cuda.max_memory_allocated() / MIB if on_gpu else None
    with count_waits(step.device) as waits:
        step(rounds)
    return {
        "weights": kind if isinstance(kind, str) else kind.value,
        "seconds": statistics.median(seconds[1:]),
        "mib": mib,
        "waits": len(waits),
    }
