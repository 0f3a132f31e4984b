"""Detectron2's checkpointer, for plain ``.safetensors`` files too."""

from detectron2.checkpoint import DetectionCheckpointer
from safetensors import SafetensorError
from safetensors.torch import load_file

__all__ = ["TernaryCheckpointer"]


class TernaryCheckpointer(DetectionCheckpointer):
    """Reads what :class:`DetectionCheckpointer` reads, and weights in a safetensors file.

    Tensors of a safetensors file are converted to the dtype of the parameter they go to, so a
    file of half-precision weights fills a float32 model.
    """

    def _load_file(self, filename):
        if not filename.endswith(".safetensors"):
            return super()._load_file(filename)
        try:
            return {"model": load_file(filename)}
        except SafetensorError as error:
            raise ValueError(f"{filename} is not a readable safetensors file: {error}") from error
