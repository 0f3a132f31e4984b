"""Ternary models as files.

What is imported here needs neither PyTorch nor Detectron2. ``PackedModel``, ``pack_model`` and
``packed_config`` do; they are fetched when they are asked for.
"""

from .codec import CodecError, decode_codes, encode_codes
from .container import PackedFileError

__all__ = [
    "CodecError",
    "PackedFileError",
    "PackedModel",
    "decode_codes",
    "encode_codes",
    "pack_model",
    "packed_config",
]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import packed_model

    return getattr(packed_model, name)
