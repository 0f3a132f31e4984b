"""Whether a packed model computes what the model computed that was packed."""

import copy
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from detectron2.modeling import GeneralizedRCNN, SimpleFeaturePyramid
from detectron2.modeling.roi_heads import Res5ROIHeads, RROIHeads, StandardROIHeads
from detectron2.structures import Boxes, Instances, RotatedBoxes
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import InputError
from ..ternary.activations import fix_input, free_input
from ..ternary.layers import TernaryLayer
from ..ternary.ternarize import restore_classes
from .architecture import Architecture
from .other_tensors import OtherTensors
from .packed_layer import PackedLayer
from .rounding import give_packed_values

__all__ = ["check_outputs"]

_TOLERANCE = 1e-3  # of outputs, relative, once the model has the values of the file
_SCALES = 0.01  # of the weights of a layer of codes, relative: what float16 scales may change
_WEIGHTS = 0.5  # of others: weights in int8 are far off only where they are not that layer's
_SIZE = 64  # pixels a side
_BOXES = [[4.0, 6.0, 40.0, 50.0], [10.0, 2.0, 60.0, 30.0]]


class _OneType(TorchDispatchMode):
    """Gives operations that want one type of all their tensors one.

    NMS gets float32, as Detectron2 does with boxes. PointRend's places are in float32, whatever the
    features are that are taken there.
    """

    _WANT_ONE = (torch.ops.aten.grid_sampler_2d.default, torch.ops.aten.mm.default)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.torchvision.nms.default:
            args = [x.float() if isinstance(x, Tensor) else x for x in args]
        if function in self._WANT_ONE and args[0].dtype != args[1].dtype:
            args = [x.double() if isinstance(x, Tensor) else x for x in args]
        return function(*args, **(kwargs or {}))


@torch.no_grad()
def check_outputs(
    model: nn.Module,
    layers: dict[str, PackedLayer],
    others: OtherTensors,
    built: nn.Module,
    architecture: Architecture,
) -> None:
    """Compare what every module gives for one picture of noise, and heads for two fixed boxes.

    Both compute in float64, so that nothing but a difference of the models is seen; in float32
    where the model cannot. Of a model that ends in an error, what runs before it is compared.

    Args:
        model: that was packed, on any device; not changed.
        layers: its packed layers.
        others: what else it has, packed.
        built: the model of the packed file, on the CPU; changed.
        architecture: of both.

    Raises:
        InputError: they differ, or the model does not run at all; the message names the module.
    """
    reference = copy.deepcopy(model).cpu().double().eval()
    _round(reference, layers)
    others.give(reference)
    for each in (reference, built.double()):
        _move_off_ties(each, layers)
        _pad_no_squares(each)
    run = _run_detector if architecture.is_detector else _run_classifier
    given, failed = _outputs(reference, layers, run)
    if not given and architecture.is_given:  # it may take pictures as networks that classify do
        run = _run_classifier
        given, failed = _outputs(reference, layers, run)
    if failed is not None:
        in_single, failed_too = _outputs(_single(reference, layers), layers, run)
        if failed_too is None or len(in_single) > len(given):
            given, failed = in_single, failed_too
            _single(built, layers)
    if failed is not None:
        if not given:
            _refuse(f"it cannot be compared, as the model does not run on the CPU ({failed})")
        logging.getLogger(__name__).warning(
            "The packed model was compared with the model up to %s, behind which that does not run "
            "on a picture of %d x %d pixels on the CPU (%s)",
            given[-1][0],
            _SIZE,
            _SIZE,
            failed,
        )
    found, failed_too = _outputs(built, layers, run)
    if failed is None and failed_too is not None:
        raise failed_too
    for (name, outputs), (other, wanted) in zip(found, given, strict=False):
        if name != other:
            _refuse(f"it runs {name} where the model runs {other}")
        for output, want in zip(outputs, wanted, strict=True):
            error = _relative(output, want)
            if not error <= _TOLERANCE:
                _refuse(f"{name} gives something else (relative difference {error:.2g})")
    if len(found) != len(given):
        longer = max(found, given, key=len)
        _refuse(f"it runs other modules, from {longer[min(len(found), len(given))][0]} on")


_Outputs = list[tuple[str, list[Tensor]]]


def _outputs(
    model: nn.Module, layers: dict[str, PackedLayer], run: Callable
) -> tuple[_Outputs, Exception | None]:
    """Name and outputs of each module that runs, and the error that ends it, if one does."""
    given: _Outputs = []
    in_double = next(model.parameters()).dtype == torch.float64
    try:
        with _OneType(), _watched(model, layers, in_double, lambda *each: given.append(each)):
            run(model)
    except Exception as error:  # a model of the user's own may want other pictures
        return given, error
    return given, None


def _refuse(what: str) -> None:
    raise InputError(
        f"the packed model would not compute what the model does: {what}. Pack the model that its "
        "config builds, without changes of its modules afterwards; a layer or norm of a class of "
        "your own must be built by the config, too"
    )


def _round(model: nn.Module, layers: dict[str, PackedLayer]) -> None:
    """Make a model plain, with the values that its packed layers hold."""
    modules = dict(model.named_modules())
    before = {
        name: modules[name].codes_and_value()[1]
        if isinstance(modules[name], TernaryLayer)
        else modules[name].weight.clone()
        for name in layers
    }
    restore_classes(model)
    give_packed_values(model, layers)
    for name, layer in layers.items():
        error = _relative(modules[name].weight, before[name])
        if not error <= (_SCALES if layer.is_chosen else _WEIGHTS):
            _refuse(f"the weights of {name} are others (relative difference {error:.2g})")
        if layer.activation_bits:
            fix_input(modules[name], layer.activation_bits, layer.clip)


def _move_off_ties(model: nn.Module, layers: dict[str, PackedLayer]) -> None:
    """Change weights by a millionth, in each model alike.

    Weights of few bits give sums that lie right between two steps of quantized activations, where
    the last bit of a float64 decides.
    """
    generator = torch.Generator().manual_seed(0)
    for name in layers:
        weight = model.get_submodule(name).weight
        noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
        weight.mul_(noise.mul_(1e-6).add_(1))


def _single(model: nn.Module, layers: dict[str, PackedLayer]) -> nn.Module:
    """The model in float32, where the last bit of a sum is too large to round inputs behind it."""
    for name, layer in layers.items():
        if layer.activation_bits:
            free_input(model.get_submodule(name))
    return model.float()


def _pad_no_squares(model: nn.Module) -> None:
    """Let a ViTDet take the picture as small as it is: in a square of 1024 pixels, attention in
    float64 takes minutes and 10 GB."""
    backbone = getattr(model, "backbone", None)
    if isinstance(backbone, SimpleFeaturePyramid):
        backbone._square_pad = 0


@contextmanager
def _watched(
    model: nn.Module,
    layers: dict[str, PackedLayer],
    with_instances: bool,
    seen: Callable[[str, list[Tensor]], None],
) -> Iterator[None]:
    """Tell ``seen`` the name and the outputs of each module that has run.

    Norms that are folded, and layers whose norm stands apart, give something else when packed.
    Boxes that were suppressed are the same in float64 alone.
    """
    apart = set()
    for name, layer in layers.items():
        if layer.norm is not None:
            apart |= {layer.norm} if layer.norm.startswith(f"{name}.") else {layer.norm, name}
    handles = [
        module.register_forward_hook(
            lambda module, args, output, name=name: seen(name, _tensors(output, with_instances))
        )
        for name, module in model.named_modules()
        if name not in apart
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output, with_instances: bool) -> list[Tensor]:
    """The floating-point tensors of what a module gave."""
    if isinstance(output, (Boxes, RotatedBoxes)):
        output = output.tensor
    if isinstance(output, Tensor):
        return [output.clone()] if output.is_floating_point() else []  # ReLUs change them in place
    if isinstance(output, Instances):
        output = output.get_fields() if with_instances else []
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        return [tensor for part in output for tensor in _tensors(part, with_instances)]
    return []


def _relative(value: Tensor, wanted: Tensor) -> float:
    if value.shape != wanted.shape:
        return math.inf
    if not bool(wanted.isfinite().all()):
        return 0.0 if torch.equal(value.isfinite(), wanted.isfinite()) else math.inf
    error, norm = float((value.double() - wanted.double()).norm()), float(wanted.double().norm())
    return error / norm if norm else error


def _run_classifier(model: nn.Module) -> None:
    model(_noise().to(next(model.parameters()).dtype).unsqueeze(0) / 255)


def _run_detector(model: nn.Module) -> None:
    """Everything for the picture; heads of boxes, where they are Detectron2's, for fixed ones."""
    pictures = [{"image": _noise(), "height": _SIZE, "width": _SIZE}]
    heads = getattr(model, "roi_heads", None)
    fixed = isinstance(heads, (StandardROIHeads, Res5ROIHeads)) and not isinstance(heads, RROIHeads)
    if type(model) is not GeneralizedRCNN or not fixed:
        model(pictures)
        return
    images = model.preprocess_image(pictures)
    features = model.backbone(images.tensor)
    if model.proposal_generator is not None:
        model.proposal_generator(images, features, None)
    boxes = Boxes(torch.tensor(_BOXES))
    zeros = torch.zeros(len(boxes), dtype=torch.int64)
    size = (_SIZE, _SIZE)
    heads(images, features, [Instances(size, proposal_boxes=boxes, objectness_logits=zeros)], None)
    heads.forward_with_given_boxes(
        features, [Instances(size, pred_boxes=boxes, pred_classes=zeros)]
    )


def _noise() -> Tensor:
    """A picture (3, height, width) of values up to 255, the same at each call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (3, _SIZE, _SIZE), generator=generator).float()
