"""Time of a training step, ternary over float."""

import statistics
import time

import torch
from detectron2.config import CfgNode
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from tabulate import tabulate
from torch import nn
from tqdm import tqdm

from ...modeling.meta_arch import build_float_model
from ...ternary.schedule import Stage
from ...ternary.ternarize import ternarize, ternary_layers
from ...training.config_file import read_config
from ...training.setting_checks import building, check_model_settings
from ...training.trainer import TernaryTrainer

__all__ = ["benchmark_train", "comparable_models", "random_batch"]

_OBJECTS = 7  # a picture, as in COCO


def benchmark_train(
    config_file: str, overrides: list[str], size: tuple[int, int], batch: int, rounds: int
) -> dict:
    """Time a training step of the float model and of each stage of the ternary one, in turn.

    Args:
        config_file: config of the ternary model; the float one is the same without ternarization.
        overrides: keys and values that override it.
        size: height and width of the pictures, in pixels.
        batch: pictures a step.
        rounds: steps of each kind, after one to warm up.

    Returns:
        Median seconds of each kind and the ratios of ternary to float, each the median over the
        rounds of the ratio within a round.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cfg = read_config(config_file, ["MODEL.DEVICE", device, *overrides])
    cfg.SOLVER.BASE_LR = 0.0  # untrained weights would diverge; a step takes as long without moving
    check_model_settings(cfg)
    torch.manual_seed(0)
    data = random_batch(cfg, size, batch)
    models = comparable_models(cfg)
    with building("the optimizer"):
        optimizers = {
            name: TernaryTrainer.build_optimizer(cfg, model) for name, model in models.items()
        }

    kinds = {"float": None, **{stage.value: stage for stage in Stage}}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for round_ in tqdm(range(rounds + 1), desc="rounds, the first to warm up"):
        for kind, stage in kinds.items():
            name = "float" if stage is None else "ternary"
            for layer in ternary_layers(models["ternary"]).values():
                layer.ternary.stage = stage
            elapsed = _step(models[name], optimizers[name], data, seed=round_)
            if round_:
                seconds[kind].append(elapsed)
    ratios = {
        kind: statistics.median(t / f for t, f in zip(times, seconds["float"], strict=True))
        for kind, times in seconds.items()
        if kind != "float"
    }
    rows = [
        [kind, statistics.median(times), max(times) - min(times), ratios.get(kind, 1.0)]
        for kind, times in seconds.items()
    ]
    print(f"\nTraining step, {batch} pictures of {size[0]} x {size[1]}, {cfg.MODEL.DEVICE}")
    headers = ["weights", "median s", "spread s", "over float"]
    print(tabulate(rows, headers, floatfmt=".3f", tablefmt="github"))
    return {
        "size": list(size),
        "batch": batch,
        "rounds": rounds,
        "device": cfg.MODEL.DEVICE,
        "seconds": {kind: statistics.median(times) for kind, times in seconds.items()},
        "ratio": ratios,
        "worst_ratio": max(ratios.values()),
    }


def comparable_models(cfg: CfgNode) -> dict[str, nn.Module]:
    """The float and the ternary model of a config, in training mode.

    Both compute the same function, so both have the same regions of interest to work on.
    """
    with building("the model"):
        models = {"float": build_float_model(cfg), "ternary": build_float_model(cfg)}
    ternarize(models["ternary"], cfg)
    _damp_residuals(models["ternary"])
    for layer in ternary_layers(models["ternary"]).values():
        layer.snap()
    models["float"].load_state_dict(models["ternary"].state_dict(), strict=False)
    return models


def _damp_residuals(model) -> None:
    """Keep the activations of untrained weights in the range of trained ones."""
    for module in model.modules():
        if isinstance(module, BottleneckBlock) and hasattr(module.conv3.norm, "weight"):
            module.conv3.norm.weight.data.fill_(0.2)


def random_batch(cfg: CfgNode, size: tuple[int, int], batch: int) -> list[dict]:
    """Pictures of noise with boxes and masks at random places, for the config's model."""
    height, width = size
    classes = cfg.MODEL.ROI_HEADS.NUM_CLASSES
    samples = []
    for _ in range(batch):
        corner = torch.rand(_OBJECTS, 2) * torch.tensor([0.7 * width, 0.7 * height])
        extent = torch.tensor([width, height]) * (0.05 + 0.25 * torch.rand(_OBJECTS, 2))
        boxes = Boxes(torch.cat([corner, corner + extent], dim=1))
        masks = torch.zeros(_OBJECTS, height, width, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.tensor.int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
        instances = Instances(size, gt_boxes=boxes, gt_masks=BitMasks(masks))
        instances.gt_classes = torch.randint(classes, (_OBJECTS,))
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        samples.append({"image": image, "instances": instances, "height": height, "width": width})
    return samples


def _step(model, optimizer, data, seed: int) -> float:
    torch.manual_seed(seed)  # the same regions of interest for each kind
    _synchronize()
    start = time.perf_counter()
    with EventStorage():  # the heads log to it
        losses = model(data)
    optimizer.zero_grad()
    sum(losses.values()).backward()
    optimizer.step()
    _synchronize()
    return time.perf_counter() - start


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
