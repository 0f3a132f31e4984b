"""ONNX files as bytes: read and extended without the onnx package.

The few fields of ONNX's messages that count here, by their numbers in ``onnx.proto3`` of the ONNX
project; the encoding is that of Protocol Buffers (protobuf.dev, Encoding).
"""

from collections.abc import Iterator

import numpy as np

__all__ = ["WireError", "fields", "with_initializers"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH, _INITIALIZER = 7, 5  # of a model, of its graph
_DIMS, _TYPE, _NAME, _RAW = 1, 2, 8, 9  # of a tensor
_TYPES = {np.dtype(np.float32): 1, np.dtype(np.int8): 3, np.dtype(np.int32): 6}


class WireError(ValueError):
    """Bytes that are no message of Protocol Buffers."""


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a message: integers, or bytes of whatever is inside.

    Raises:
        WireError: the message ends too early, has groups, or a key beyond 32 bits.
    """
    message, place = memoryview(message), 0
    while place < len(message):
        key, place = _read_varint(message, place)
        number, kind = key >> 3, key & 7
        if not 0 < number < 1 << 29:  # other readers cut such a key to 32 bits
            raise WireError(f"a field of the number {number}")
        if kind == _VARINT:
            value, place = _read_varint(message, place)
        else:
            if kind == _BYTES:
                length, place = _read_varint(message, place)
            elif kind in (_FIXED64, _FIXED32):
                length = 8 if kind == _FIXED64 else 4
            else:
                raise WireError(f"a field of the kind {kind}")
            if length > len(message) - place:
                raise WireError("a field that is longer than its message")
            value, place = bytes(message[place : place + length]), place + length
        yield number, value


def with_initializers(model: bytes, tensors: dict[str, np.ndarray]) -> bytes:
    """A model whose graph has more initializers.

    Args:
        model: serialized, with one graph.
        tensors: by name; float32, int8 or int32.

    Raises:
        WireError: it is no such model.
    """
    added = b"".join(_field(_INITIALIZER, _tensor(*each)) for each in tensors.items())
    parts, graphs = [], 0
    for number, value in fields(model):
        if number == _GRAPH and isinstance(value, bytes):
            graphs += 1
            value += added
        parts.append(_field(number, value) if isinstance(value, bytes) else _number(number, value))
    if graphs != 1:
        raise WireError(f"a model of {graphs} graphs")
    return b"".join(parts)


def _tensor(name: str, array: np.ndarray) -> bytes:
    array = np.asarray(array, order="C")
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return b"".join([
        *(_number(_DIMS, size) for size in array.shape),
        _number(_TYPE, _TYPES[array.dtype]),
        _field(_NAME, name.encode()),
        _field(_RAW, little.tobytes()),
    ])  # fmt: skip


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(message: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise WireError("a number that is cut")
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise WireError("a number of more than ten bytes")
