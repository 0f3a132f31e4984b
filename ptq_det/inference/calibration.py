"""Finds the ranges of a packed model's activations on a few pictures."""

import itertools
from collections.abc import Iterable

import torch
from detectron2.data import build_detection_test_loader
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from torch import Tensor, nn
from tqdm import tqdm

from ..errors import InputError
from ..packing import PackedModel
from .ranges import best_range

__all__ = ["OUTPUT", "PICTURES", "calibrate", "calibrate_packed"]

OUTPUT = ":output"
PICTURES = 32
_PER_CALL = 1 << 13  # values that are kept of a tensor


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[list[dict]]) -> dict[str, tuple[float, float]]:
    """Ranges of what every convolution and linear layer gets, and of what shortcuts give.

    Args:
        model: a packed model in float, in evaluation mode.
        batches: pictures as Detectron2's test loaders give them; a few dozen are enough.

    Returns:
        :data:`ptq_det.inference.ranges.Ranges`, of the layers that were reached.
    """
    samples: dict[str, list[Tensor]] = {}
    handles = []
    shortcuts = {
        module.shortcut
        for module in model.modules()
        if isinstance(module, (BasicBlock, BottleneckBlock)) and module.shortcut is not None
    }
    for name, module in model.named_modules():
        if not isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            continue
        handles.append(
            module.register_forward_pre_hook(
                lambda module, args, name=name: _keep(samples, name, args[0])
            )
        )
        if module in shortcuts:
            handles.append(
                module.register_forward_hook(
                    lambda module, args, out, name=name: _keep(samples, name + OUTPUT, out)
                )
            )
    for batch in batches:
        model(batch)
    for handle in handles:
        handle.remove()
    return {name: best_range(torch.cat(values)) for name, values in samples.items()}


def calibrate_packed(packed: PackedModel, dataset: str) -> None:
    """Give a packed model the ranges of its activations on the first pictures of a data set.

    Args:
        packed: a detector; its ``ranges`` are replaced.
        dataset: name of a registered data set, whose pictures are scaled as for an evaluation.

    Raises:
        InputError: the packed model is no detector.
    """
    if packed.architecture != ["detectron2"]:
        raise InputError("only detectors are calibrated, for the engine int8")
    cfg = packed.cfg()
    cfg.MODEL.DEVICE = "cpu"
    loader = build_detection_test_loader(cfg, dataset)
    count = min(PICTURES, len(loader))
    pictures = itertools.islice(loader, count)
    model = packed.build("cpu")
    predictor = getattr(getattr(model, "roi_heads", None), "box_predictor", None)
    if hasattr(predictor, "test_score_thresh"):
        predictor.test_score_thresh = 0.0  # so that the mask head has boxes on any picture
    packed.ranges = calibrate(model, tqdm(pictures, "Calibrating", count))


def _keep(samples: dict[str, list[Tensor]], name: str, tensor: Tensor) -> None:
    values = tensor.detach().flatten()
    if values.numel():
        kept = values[:: values.numel() // _PER_CALL | 1].float().cpu().clone()
        # The extremes decide on the range, and a stride may miss them.
        extremes = torch.stack([values.min(), values.max()]).float().cpu()
        samples.setdefault(name, []).append(torch.cat([kept, extremes]))
