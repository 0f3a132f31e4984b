"""How long a detector takes, part by part."""

import time
from collections.abc import Callable

from torch import nn

__all__ = ["PARTS", "REST", "timed"]

PARTS = {  # time of these modules, less that of those inside them which are here too
    "backbone": "backbone and FPN",
    "proposal_generator.rpn_head": "RPN's layers",
    "proposal_generator": "proposals",
    "head": "RetinaNet's layers",
    "roi_heads.box_pooler": "pooling for boxes",
    "roi_heads.box_head": "box head",
    "roi_heads.mask_pooler": "pooling for masks",
    "roi_heads.mask_head": "mask head",
    "roi_heads": "box predictions",
    "network": "all but pasting, of a runtime",
}
REST = "masks pasted, and the rest"


def timed(model: nn.Module, batch: list[dict]) -> tuple[float, dict[str, float]]:
    """Seconds of a prediction, and of its parts by their titles.

    A model that is in another process times itself, by a method of this name.
    """
    if hasattr(model, "timed"):
        return model.timed(batch)
    spent: dict[str, float] = {}
    handles = []
    for name in PARTS:
        try:
            module = model.get_submodule(name)
        except AttributeError:
            continue
        handles += _stopwatch(name, module, spent)
    start = time.perf_counter()
    model(batch)
    total = time.perf_counter() - start
    for handle in handles:
        handle()
    own = {}
    for name, value in spent.items():
        inside = [other for other in spent if other.startswith(f"{name}.")]
        own[PARTS[name]] = value - sum(spent[other] for other in inside)
    own[REST] = total - sum(own.values())
    return total, own


def _stopwatch(name: str, module: nn.Module, spent: dict[str, float]) -> list[Callable]:
    started = []

    def start(module, args):
        started.append(time.perf_counter())

    def stop(module, args, output):
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - started.pop()

    return [
        module.register_forward_pre_hook(start).remove,
        module.register_forward_hook(stop).remove,
    ]
