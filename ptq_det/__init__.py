"""Pruning ternary quantization (PTQ) for Detectron2."""

try:
    import detectron2  # noqa: F401
except ImportError as error:
    raise ImportError(
        "ptq_det is a plugin of Detectron2, which is not installed. Install it with\n"
        "  pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2'\n"
        "or, where only PyPI can be reached, with `make venv` in a clone of ptq_det."
    ) from error

from . import data, modeling  # noqa: F401  (they register with Detectron2)
from .config import add_ternary_config
from .inference import load_packed
from .packing import pack_model, packed_config
from .ternary.ternarize import ternarize
from .training.checkpoint import register_safetensors
from .training.hooks import PTQHook
from .training.trainer import TernaryTrainer

__all__ = [
    "PTQHook",
    "TernaryTrainer",
    "add_ternary_config",
    "load_packed",
    "pack_model",
    "packed_config",
    "ternarize",
]
register_safetensors()
__version__ = "0.1.0"
