"""Ternary models as files.

What is here by name needs neither PyTorch nor Detectron2; :mod:`.packed_model` does.
"""

from .codec import CodecError, decode_codes, encode_codes
from .container import PackedFileError

__all__ = ["CodecError", "PackedFileError", "decode_codes", "encode_codes"]
