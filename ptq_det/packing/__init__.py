"""Ternary codes as bytes."""

from .codec import CodecError, decode_codes, encode_codes

__all__ = ["CodecError", "decode_codes", "encode_codes"]
