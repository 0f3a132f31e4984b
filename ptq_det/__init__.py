"""Pruning ternary quantization (PTQ) for Detectron2.

With Detectron2 installed, importing this registers builders, data sets, weights and engines.
Without it the package can be imported too, for the parts that need neither it nor PyTorch (the
codec and the container of packed files); what is public here then says what to install.

``PTQ_DET_PLUGINS`` in the environment names modules, with commas between them, that are imported
then, e.g. for quantizers, builders and engines of one's own, or projects of Detectron2.
"""

from importlib.util import find_spec

__all__ = [
    "PTQHook",
    "TernaryTrainer",
    "add_ternary_config",
    "keep_in_float",
    "load_packed",
    "make_plain",
    "pack_model",
    "packed_config",
    "ternarize",
]
__version__ = "0.1.0"

if find_spec("detectron2") is not None:
    from . import data, modeling  # noqa: F401  (they register with Detectron2)
    from .config import add_ternary_config
    from .inference import load_packed
    from .modeling.meta_arch import honour_ternary
    from .packing.packed_model import pack_model, packed_config
    from .plugins import import_plugins
    from .ternary.kept_layers import keep_in_float
    from .ternary.ternarize import make_plain, ternarize
    from .training.checkpoint import register_safetensors
    from .training.hooks import PTQHook
    from .training.trainer import TernaryTrainer

    register_safetensors()
    honour_ternary()
    import_plugins()
else:

    def __getattr__(name: str):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        raise ImportError(
            f"ptq_det.{name} needs Detectron2, which is not installed. Install it with\n"
            "  pip install --no-build-isolation 'git+https://github.com/facebookresearch/detectron2'\n"
            "or, where only PyPI can be reached, with `make venv` in a clone of ptq_det."
        )
