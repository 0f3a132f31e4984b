"""Packed detectors as ONNX models.

``decode`` makes one without PyTorch; ``export_onnx`` needs PyTorch, Detectron2 and the extra
``onnx``.
"""

from .decode import GraphError, decode

__all__ = ["GraphError", "decode", "export_onnx"]


def __getattr__(name: str):
    if name != "export_onnx":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .exporting import export_onnx

    return export_onnx
