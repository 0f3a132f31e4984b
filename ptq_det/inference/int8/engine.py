"""Engine ``int8``: integers on a CPU, by oneDNN's kernels."""

import torch

from ...engines import ENGINE_REGISTRY, Engine
from ..memory import return_freed_memory
from .convert import to_int8
from .layers import saturates

__all__ = ["Int8Engine"]


@ENGINE_REGISTRY.register()
class Int8Engine(Engine):
    """uint8 activations and int8 weights, for a calibrated file of the R-CNN family with ResNet and
    FPN, or of a RetinaNet of these."""

    name = "int8"

    def why_not(self, packed, device):
        if device is not None and torch.device(device).type != "cpu":
            return f"it runs on a CPU, not on {device}"
        if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
            return "PyTorch has no oneDNN here"
        if not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
            return "PyTorch's oneDNN has no qconv2d_pointwise here"
        if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
            return "this CPU has no AVX2"
        if not packed.architecture.is_detector:
            return "only detectors run on integers"
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
        to_int8(model, packed)
        model.load_state_dict(packed.others.state_dict(), strict=False)
        return model.requires_grad_(False).eval()

    def about(self):
        without = " without VNNI, with 7-bit inputs of 8-bit weights" if saturates() else ""
        return f"by oneDNN{without}"
