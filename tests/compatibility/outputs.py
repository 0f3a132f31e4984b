"""Whether two models find the same in a picture."""

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

__all__ = ["assert_same_outputs"]

_TOLERANCE = 1e-3  # relative, or in pixels
_SHARE = 0.9  # of boxes and pixels; among random scores the last bits decide what is suppressed


@torch.no_grad()
def assert_same_outputs(model: nn.Module, reference: nn.Module, picture: dict) -> None:
    """Raise where two models give something else for a picture, as Detectron2's models take one."""
    found, wanted = (each.eval()([dict(picture)])[0] for each in (model, reference))
    assert found.keys() == wanted.keys() and wanted
    for name, value in wanted.items():
        other = found[name]
        if name == "panoptic_seg":
            value, other = value[0], other[0]
            share = float((value == other).float().mean())
        elif isinstance(value, Instances):
            assert len(value), f"{name} is empty"
            share = _share_of_boxes(other, value)
        else:
            share = float(_relative(other, value) < _TOLERANCE)
        assert share >= _SHARE, f"{name} is another in {1 - share:.0%}"


def _share_of_boxes(found: Instances, wanted: Instances) -> float:
    """How many have their like: the same class, score, box and mask."""
    like = torch.ones(len(wanted), len(found), dtype=torch.bool)
    for name, value in wanted.get_fields().items():
        if not isinstance(getattr(value, "tensor", value), Tensor):
            continue  # of a project's own type
        a, b = (_flat(each.get(name)) for each in (wanted, found))
        scale = a.abs().amax(1, keepdim=True).clamp(min=1) * _TOLERANCE
        like &= (a[:, None] - b[None]).abs().mean(2) <= scale
    return float(like.any(1).float().mean())


def _flat(value) -> Tensor:
    return getattr(value, "tensor", value).float().reshape(len(value), -1)


def _relative(found: Tensor, wanted: Tensor) -> float:
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())
