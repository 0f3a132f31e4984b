"""Finds the ranges of a packed model's activations on a few pictures."""

from collections.abc import Iterable, Iterator

import torch
from detectron2.data import DatasetCatalog, build_detection_test_loader
from detectron2.modeling import FPN, RetinaNet
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from torch import Tensor, nn
from tqdm import tqdm

from ..data.picture_check import check_pictures
from ..errors import InputError
from ..packing.packed_model import PackedModel
from ..ternary.layers import is_layer
from .ranges import best_range

__all__ = ["OUTPUT", "PICTURES", "calibrate", "calibrate_packed", "take_any_score"]

OUTPUT = ":output"
PICTURES = 32
_PER_CALL = 1 << 13  # values that are kept of a tensor
_BOXES = 10  # with the highest scores, that a picture gives the mask head


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[list[dict]]) -> dict[str, tuple[float, float]]:
    """Ranges of what every convolution and linear layer gets, and of what is added up gives.

    Args:
        model: a packed model in float, in evaluation mode.
        batches: pictures as Detectron2's test loaders give them; a few dozen are enough.

    Returns:
        :data:`ptq_det.inference.ranges.Ranges`, of the layers that were reached.
    """
    samples: dict[str, _Sample] = {}
    handles = []
    added = set(_added(model))
    for name, module in model.named_modules():
        if not is_layer(module):
            continue
        handles.append(
            module.register_forward_pre_hook(
                lambda module, args, name=name: _keep(samples, name, args[0])
            )
        )
        if module in added:
            handles.append(
                module.register_forward_hook(
                    lambda module, args, out, name=name: _keep(samples, name + OUTPUT, out)
                )
            )
    for batch in batches:
        model(batch)
    for handle in handles:
        handle.remove()
    return {name: sample.best_range() for name, sample in samples.items()}


def _added(model: nn.Module) -> Iterator[nn.Module]:
    """Layers to whose output another one is added: of residual blocks, and FPN's lateral ones."""
    for module in model.modules():
        if isinstance(module, BottleneckBlock):
            yield module.conv3
        elif isinstance(module, BasicBlock):
            yield module.conv2
        elif isinstance(module, FPN):
            yield from module.lateral_convs
        if isinstance(module, (BasicBlock, BottleneckBlock)) and module.shortcut is not None:
            yield module.shortcut


def calibrate_packed(packed: PackedModel, data: str | Iterable[list[dict]]) -> None:
    """Give a packed model the ranges of its activations on the first pictures of a data set.

    Args:
        packed: a detector; its ``ranges`` are replaced.
        data: name of a registered data set, whose pictures are scaled as for an evaluation; or
            what gives batches as Detectron2's test loaders do, e.g. one of a lazy config.

    Raises:
        InputError: the packed model is no detector, a picture cannot be used, or a data set is
            named and no config says how its pictures are scaled.
    """
    if not packed.architecture.is_detector:
        raise InputError("only detectors are calibrated, for engines on integers")
    batches = _of_dataset(packed, data) if isinstance(data, str) else data
    model = packed.build("cpu")
    # The mask head is to have boxes on any picture, and no more than a picture has objects.
    take_any_score(model, _BOXES)
    packed.ranges = calibrate(model, tqdm(_first(batches, PICTURES), "Calibrating"))


def _first(batches: Iterable[list[dict]], count: int) -> Iterator[list[dict]]:
    """Batches with so many pictures, or all there are."""
    for batch in batches:
        yield batch[:count]
        count -= len(batch)
        if count <= 0:
            return


def _of_dataset(packed: PackedModel, dataset: str) -> Iterable[list[dict]]:
    """Batches of a data set, scaled as the model's config says."""
    cfg = packed.cfg()
    cfg.MODEL.DEVICE = "cpu"
    troubles = check_pictures(DatasetCatalog.get(dataset)[:PICTURES])
    if troubles:
        raise InputError("pictures cannot be used:\n  " + "\n  ".join(troubles))
    return build_detection_test_loader(cfg, dataset)


def take_any_score(model: nn.Module, most: int | None = None) -> None:
    """Let a detector, in place, give detections of any score, and ``most`` at most."""
    if isinstance(model, RetinaNet):
        model.test_score_thresh = 0.0
        return
    predictors = getattr(getattr(model, "roi_heads", None), "box_predictor", [])
    for predictor in predictors if isinstance(predictors, (list, nn.ModuleList)) else [predictors]:
        predictor.test_score_thresh = 0.0
        if most is not None:
            predictor.test_topk_per_image = most


class _Sample:
    """Some of the values that a tensor had, each as often as it should be, and its extremes."""

    def __init__(self):
        self._kept: list[Tensor] = []
        self._low, self._high = 0.0, 0.0

    def add(self, values: Tensor) -> None:
        self._kept.append(values[:: values.numel() // _PER_CALL | 1].float().cpu().clone())
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))

    def best_range(self) -> tuple[float, float]:
        return best_range(torch.cat(self._kept), self._low, self._high)


def _keep(samples: dict[str, _Sample], name: str, tensor: Tensor) -> None:
    values = tensor.detach().flatten()
    if values.numel():
        samples.setdefault(name, _Sample()).add(values)
