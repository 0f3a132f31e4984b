"""Ternary models as files."""

from .codec import CodecError, decode_codes, encode_codes
from .container import PackedFileError
from .packed_model import PackedModel, pack_model, packed_config

__all__ = [
    "CodecError",
    "PackedFileError",
    "PackedModel",
    "decode_codes",
    "encode_codes",
    "pack_model",
    "packed_config",
]
