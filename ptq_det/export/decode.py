"""From a packed file and a graph without weights to a model that runs, without PyTorch or onnx."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from functools import partial

from ..errors import InputError
from ..files import replacing
from ..packing.container import Container, PackedFileError
from ..packing.names import PARTS as PACKED_PARTS
from ..packing.packed_layer import PackedLayer
from .operators import OPERATORS
from .weights import Wanted, initializers
from .wire import WireError, fields, with_initializers

__all__ = [
    "FORMAT",
    "GraphError",
    "decode",
    "digest_of",
    "fill",
    "metadata_of",
    "read_graph",
    "require_another",
]

FORMAT = "1"  # of the metadata
_LARGEST = (3 << 20) // 10  # bytes of a graph without weights; a cascade of 152 layers has 294,181
_REPEATED = 2  # arrays of a kind that a layer gives at most
# Numbers of the fields that are looked at, in onnx.proto3.
_GRAPH, _OPSET, _METADATA, _TRAINING, _FUNCTIONS = 7, 8, 14, 20, 25  # of a model
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15  # of a graph
_OPERATOR, _ATTRIBUTE, _DOMAIN = 4, 5, 7  # of a node
_TENSOR, _INNER, _INNERS = 5, 6, 11  # of an attribute
_EXTERNAL, _LOCATION = 13, 14  # of a tensor
# And of all that the export writes: what is not known could be understood by another reader.
_OF_MODEL = {1, 2, 3, 4, 5, 6, _GRAPH, _OPSET, _METADATA}
_OF_GRAPH = {_NODE, 2, _INITIALIZER, 10, 11, 12, 13}
_OF_NODE = {1, 2, 3, _OPERATOR, _ATTRIBUTE, 6, _DOMAIN}
_OF_ATTRIBUTE = {1, 2, 3, 4, _TENSOR, 7, 8, 9, 13, 20}
_OF_TENSOR = {1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, _LOCATION}


class GraphError(InputError):
    """A file is no graph that the export has written; the message names file and reason."""

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(f"{os.fspath(path)}: {reason}")


def decode(
    packed: str | os.PathLike,
    graph: str | os.PathLike,
    output: str | os.PathLike,
    told: Callable[[int], None] = lambda count: None,
) -> None:
    """Write the ONNX model of a packed file and its graph without weights.

    Args:
        packed: packed file.
        graph: what ``tools/export_onnx.py --weightless`` wrote for it.
        output: file to write; it appears when it is whole.
        told: how many layers are decoded.

    Raises:
        FileNotFoundError: a file is not there.
        PackedFileError, GraphError: a file cannot be used, or the graph is of another file.
    """
    require_another(output, packed, graph)
    data, metadata = read_graph(graph)
    if metadata.get("packed_file") != digest_of(packed):
        raise GraphError(
            graph, f"it was exported from another file than {os.fspath(packed)}; export it again"
        )
    model = fill(data, metadata, packed, told)
    with replacing(output) as scratch, open(scratch, "wb") as file:
        file.write(model)


def require_another(output: str | os.PathLike, *inputs: str | os.PathLike) -> None:
    """Raise :class:`InputError` where a file would be written over one that it is made of."""
    for each in inputs:
        if os.path.exists(output) and os.path.exists(each) and os.path.samefile(output, each):
            raise InputError(f"{os.fspath(output)} is what it is made of; name another output")


def fill(
    data: bytes,
    metadata: dict[str, str],
    packed: str | os.PathLike,
    told: Callable[[int], None] = lambda count: None,
) -> bytes:
    """A model with the weights of a packed file; errors as :func:`decode` has them."""
    try:
        wanted = [Wanted.from_json(each) for each in json.loads(metadata["weights"])]
        repeated = Counter((each.layer, each.part) for each in wanted)
        if max(repeated.values(), default=0) > _REPEATED or len(wanted) > len(
            {each.name for each in wanted}
        ):
            raise ValueError("the same ones again and again")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise GraphError(
            packed, f"the graph beside it does not tell its weights ({error})"
        ) from error
    container = Container.read(packed)
    try:
        arrays = initializers(wanted, _layers(container, os.fspath(packed)), told)
        return with_initializers(data, arrays)
    except PackedFileError:
        raise
    except ValueError as error:
        raise PackedFileError(packed, f"it does not fit the graph ({error})") from error


def _layers(container: Container, path: str) -> dict[str, Callable[[], PackedLayer]]:
    try:
        headers = json.loads(container.metadata["layers"])
        assert isinstance(headers, dict)
    except (ValueError, KeyError, AssertionError, RecursionError) as error:
        raise PackedFileError(path, "its layers are no fields by name") from error

    def decoded(name: str) -> PackedLayer:
        parts = {p: container.tensors.get(f"{name}.{p}") for p in PACKED_PARTS}
        try:
            found = {part: value for part, value in parts.items() if value is not None}
            return PackedLayer.from_file(headers[name], found)
        except (ValueError, OverflowError, AttributeError) as error:
            raise PackedFileError(path, f"layer {name!r}: {error}") from error

    return {name: partial(decoded, name) for name in headers}


def digest_of(path: str | os.PathLike) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_graph(path: str | os.PathLike) -> tuple[bytes, dict[str, str]]:
    """A graph without weights, and its metadata.

    Raises:
        FileNotFoundError: it is not there.
        GraphError: it is no model of ONNX, refers to other files, has graphs within the graph, or
            operators that the export never writes.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{os.fspath(path)}: no such file")
    if os.path.getsize(path) > _LARGEST:
        raise GraphError(
            path,
            f"{os.path.getsize(path)} bytes; a graph without weights has {_LARGEST} at most",
        )
    with open(path, "rb") as file:
        data = file.read()
    try:
        metadata = metadata_of(data)
    except (WireError, UnicodeDecodeError) as error:
        raise GraphError(path, f"it is no ONNX model that the export wrote ({error})") from error
    if metadata.get("ptq_det") != FORMAT:
        raise GraphError(
            path,
            f"its format is {metadata.get('ptq_det')!r}, and this ptq_det reads {FORMAT!r}; export "
            "it again",
        )
    return data, metadata


def metadata_of(data: bytes) -> dict[str, str]:
    """The metadata of a graph; errors as :func:`read_graph`'s, as ``WireError``."""
    metadata = {}
    for number, value in fields(data):
        if number in (_TRAINING, _FUNCTIONS):
            raise WireError("functions or training")
        if number == _GRAPH:
            _check_graph(_message(value))
        elif number == _METADATA:
            entry = {key: _message(text).decode() for key, text in fields(_message(value))}
            metadata[entry.get(1, "")] = entry.get(2, "")
        elif number == _OPSET:
            domain = dict(fields(_message(value))).get(1, b"")
            if domain not in (b"", b"ai.onnx"):
                raise WireError(f"operators of the domain {_message(domain)[:40]!r}")
        _require_known(number, _OF_MODEL, "model")
    return metadata


def _check_graph(graph: bytes) -> None:
    for number, value in fields(graph):
        if number == _SPARSE:
            raise WireError("sparse weights")
        if number == _INITIALIZER:
            _check_tensor(_message(value))
        elif number == _NODE:
            _check_node(_message(value))
        _require_known(number, _OF_GRAPH, "graph")


def _check_node(node: bytes) -> None:
    for number, value in fields(node):
        if number == _OPERATOR and _message(value).decode() not in OPERATORS:
            raise WireError(f"the operator {_message(value)[:40]!r}")
        if number == _DOMAIN and value not in (b"", b"ai.onnx"):
            raise WireError(f"an operator of the domain {_message(value)[:40]!r}")
        if number == _ATTRIBUTE:
            for kind, inner in fields(_message(value)):
                if kind in (_INNER, _INNERS):
                    raise WireError("a graph within the graph")
                if kind == _TENSOR:
                    _check_tensor(_message(inner))
                _require_known(kind, _OF_ATTRIBUTE, "attribute")
        _require_known(number, _OF_NODE, "node")


def _check_tensor(tensor: bytes) -> None:
    for number, value in fields(tensor):
        if number == _EXTERNAL or (number == _LOCATION and value != 0):
            raise WireError("weights in other files")
        _require_known(number, _OF_TENSOR, "tensor")


def _require_known(number: int, known: set[int], what: str) -> None:
    if number not in known:
        raise WireError(f"a field {number} of a {what}")


def _message(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise WireError("a number where a message should be")
    return value
