"""The body of a detector, whose layers are all but the heads': backbone, FPN and what proposals, or
RetinaNet's detections, are made of. How long it takes on each engine, and how far off it is."""

import math
import time

import torch
from torch import Tensor, nn

from .parts import PARTS
from .runtimes import Runtime

__all__ = ["BODY", "body_errors", "body_seconds"]

BODY = "all layers before the heads"

_HEADS = ("proposal_generator.rpn_head", "head")


def body_seconds(model: nn.Module, batch: list[dict], parts: dict[str, float]) -> float:
    """Seconds of the body: of a runtime alone, of others what its parts took in a prediction."""
    if isinstance(model, Runtime):
        picture = model.picture_of(batch[0])
        start = time.perf_counter()
        model.body(picture)
        return time.perf_counter() - start
    return sum(parts.get(PARTS[name], 0.0) for name in ("backbone", *_HEADS))


@torch.no_grad()
def body_errors(models: dict[str, nn.Module], batch: list[dict]) -> dict[str, float]:
    """Relative error of what bodies give for a picture, beside the engine float's, by name."""
    wanted = _outputs_of(models["float"], batch)
    errors = {}
    for name, model in models.items():
        if isinstance(model, Runtime):
            found = model.body(model.picture_of(batch[0]))
        elif hasattr(model, "timed"):
            continue
        else:
            found = _outputs_of(model, batch)
        shares = [
            float((torch.as_tensor(own) - given).square().sum() / given.square().sum())
            for own, given in zip(found, wanted, strict=True)
        ]
        errors[name] = math.sqrt(sum(shares) / len(shares))  # each output counts for the same
    return errors


def _outputs_of(model: nn.Module, batch: list[dict]) -> list[Tensor]:
    """Of Detectron2's model or an engine: kind by kind of all levels."""
    (head,) = (module for name, module in model.named_modules() if name in _HEADS)
    found: list[Tensor] = []
    handle = head.register_forward_hook(
        lambda module, args, out: found.extend(each.clone() for kind in out for each in kind)
    )
    model(batch)
    handle.remove()
    return found
