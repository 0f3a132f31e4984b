"""Engine ``sparse``: additions in place of products, by the kernels of this package."""

import torch

from ...engines import ENGINE_REGISTRY, Engine
from ...kernels import Kernels, why_no_kernels
from ..int8.engine import Int8Engine
from ..memory import return_freed_memory
from .choice import faster_by_onednn
from .convert import to_sparse

__all__ = ["SparseEngine"]


@ENGINE_REGISTRY.register()
class SparseEngine(Engine):
    """int16 activations whose ternary layers add and skip, for a calibrated file of the R-CNN
    family with ResNet and FPN, or of a RetinaNet of these.

    Where a CPU multiplies integers faster than it adds those that are left, it is the engine int8.
    """

    name = "sparse"

    def __init__(self):
        self._faster = 0.0

    def why_not(self, packed, device):
        if device is not None and torch.device(device).type != "cpu":
            return f"it runs on a CPU, not on {device}"
        reason = why_no_kernels()
        if reason is not None:
            return reason
        if not packed.architecture.is_detector:
            return "only detectors run on its kernels"
        if any(layer.activation_bits for layer in packed.layers.values()):
            return "its activations have bits of their own"
        if not packed.ranges:
            return (
                "the file was not calibrated; tools/pack.py FILE --calibrate DATASET --output "
                "OTHER_FILE makes one that is"
            )
        return None

    def build(self, packed, device):
        return_freed_memory()
        model = packed.skeleton()
        to_sparse(model, packed)
        model.load_state_dict(packed.others.state_dict(), strict=False)
        self._faster = faster_by_onednn(model)
        if self._faster > 1 and Int8Engine().why_not(packed, device) is None:
            return Int8Engine().build(packed, device)
        return model.requires_grad_(False).eval()

    def about(self):
        kernels = f"kernels for {Kernels.here().kind}"
        if self._faster > 1:
            return f"by oneDNN, whose layers take {1 / self._faster:.0%} of the time of {kernels}"
        faster = f", whose layers take {self._faster:.0%} of the time of oneDNN's"
        return f"by {kernels}{faster if self._faster else ''}"
