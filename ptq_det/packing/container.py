"""The packed file: a safetensors file that says what it is and shows every change of a byte.

docs/file_format.md is the specification.
"""

import hashlib
import json
import os
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..errors import InputError
from ..files import replacing
from .names import holds_codes

__all__ = ["FORMAT", "VERSION", "Container", "PackedFileError", "is_packed"]

FORMAT = "ptq_det packed model"
VERSION = "3"
_READABLE = ("1", "2", "3")  # what a later version has more, a file need not have
_HEADER_LIMIT = 1 << 20  # bytes; the header of a Mask R-CNN has 40 thousand
_PYTORCH = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")  # zip files and pickles
_NO_DIGEST = "0" * 64


class PackedFileError(InputError):
    """A file is no packed model that this version can read; the message names file and reason."""

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(f"{os.fspath(path) or 'the packed model'}: {reason}")


@dataclass
class Container:
    """What a packed file holds.

    Attributes:
        tensors: by name.
        metadata: texts by name, without format, version and digests.
        version: of the format that it was read from; files are written in the latest.
    """

    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]
    version: str = VERSION

    def write(self, path: str | os.PathLike) -> None:
        """Write the file; the same content gives the same bytes."""
        header, data = self._encoded()
        if len(header) > _HEADER_LIMIT:
            raise PackedFileError(path, f"its header would have {len(header)} bytes")
        with replacing(path) as scratch, open(scratch, "wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.write(data)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return 8 + sum(map(len, self._encoded()))

    def _encoded(self) -> tuple[bytes, bytes]:
        """Header and tensors of the file."""
        digests = {name: _digest(tensor) for name, tensor in sorted(self.tensors.items())}
        metadata = {
            "format": FORMAT,
            "version": VERSION,
            **self.metadata,
            "digests": json.dumps(digests, separators=(",", ":")),
            "digest": _NO_DIGEST,
        }
        tensors = {name: np.asarray(tensor, order="C") for name, tensor in self.tensors.items()}
        header, data = _split(save(tensors, metadata))
        fields = json.loads(header)
        fields["__metadata__"] = metadata  # the library's order changes from call to call
        header = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
        header += b" " * (-len(header) % 8)
        marker = _digest_field(_NO_DIGEST)
        assert header.count(marker) == 1
        header = header.replace(marker, _digest_field(hashlib.sha256(header).hexdigest()))
        return header, data

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Container":
        """Read a file and check every byte of it.

        Raises:
            FileNotFoundError: there is no such file.
            PackedFileError: it is not a packed model, of another version, or damaged.
        """
        header = _read_header(path)
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                _check(path, header, metadata)
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except PackedFileError:
            raise
        except (SafetensorError, OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise PackedFileError(path, f"damaged, or no safetensors file ({error})") from error
        try:
            digests = json.loads(metadata.pop("digests", ""))
        except (ValueError, RecursionError):
            digests = None
        if not isinstance(digests, dict) or digests.keys() != tensors.keys():
            raise PackedFileError(path, "the list of digests does not fit the tensors")
        for name, tensor in tensors.items():
            if _digest(tensor) != digests[name]:
                raise PackedFileError(path, f"the tensor {name!r} is damaged; get the file again")
        version = metadata["version"]
        for key in ("format", "version", "digest"):
            del metadata[key]
        return cls(tensors, metadata, version)


def is_packed(path: str | os.PathLike) -> bool:
    """Whether a safetensors file is meant as a packed model; it may still be damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata, names = file.metadata() or {}, file.keys()
    except (SafetensorError, OSError, UnicodeDecodeError):
        return False
    return metadata.get("format") == FORMAT or any(map(holds_codes, names))


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Header and tensors of a safetensors file."""
    end = 8 + int.from_bytes(data[:8], "little")
    return data[8:end], data[end:]


def _digest(tensor: np.ndarray) -> str:
    """First 64 bits of SHA-256 over the tensor's bytes, in hexadecimal."""
    return hashlib.sha256(tensor.tobytes()).hexdigest()[:16]


def _digest_field(digest: str) -> bytes:
    return f'"digest":"{digest}"'.encode()


def _read_header(path: str | os.PathLike) -> bytes:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{os.fspath(path)}: no such file")
    with open(path, "rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        left = os.path.getsize(path) - 8
        if length > left and start.startswith(
            (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")
        ):
            raise PackedFileError(
                path, "a checkpoint of PyTorch, not a packed model; tools/pack.py makes one of it"
            )
        if len(start) < 8 or length > left:
            raise PackedFileError(path, "cut, or no safetensors file")
        if length > _HEADER_LIMIT:
            raise PackedFileError(path, f"its header claims {length} bytes")
        return file.read(length)


def _check(path, header: bytes, metadata: dict[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise PackedFileError(
            path, "a safetensors file, but not a packed model (tools/pack.py makes one)"
        )
    if metadata.get("version") not in _READABLE:
        raise PackedFileError(
            path,
            f"a packed model of version {metadata.get('version')!r}, but this ptq_det reads up "
            f"to version {VERSION!r}; install the ptq_det that wrote it, or pack the model again",
        )
    digest = metadata.get("digest", "")
    without = header.replace(_digest_field(digest), _digest_field(_NO_DIGEST))
    if hashlib.sha256(without).hexdigest() != digest:
        raise PackedFileError(path, "its header is damaged; get the file again")
