"""Packed detectors as ONNX models.

``decode`` makes one without PyTorch; ``export_onnx`` needs PyTorch, Detectron2 and the extra
``onnx``.
"""

from .decode import GraphError, decode

__all__ = ["GraphError", "decode", "export_onnx"]


def __getattr__(name: str):
    if name != "export_onnx":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .exporting import export_onnx
    except ImportError as error:
        raise ImportError(
            f"ptq_det.export.export_onnx needs {error.name}, which is not installed: "
            "pip install -e '.[onnx]' in a clone of ptq_det, and Detectron2 as its README has it"
        ) from error
    return export_onnx
