"""What is in a packed file, in words and as a table of its layers."""

import json
import os

import numpy as np
from detectron2.utils.file_io import PathManager
from tabulate import tabulate

from ..engines import ENGINE_REGISTRY
from ..files import MIB
from ..packing.container import Container
from ..packing.names import PARTS
from ..packing.packed_layer import PackedLayer
from ..packing.packed_model import PackedModel

__all__ = ["describe_file"]

_MOST_NAMES = 12  # of classes that are written out


def describe_file(path: str | os.PathLike) -> str:
    """Architecture, classes, format version and size of a packed file, and a row a layer.

    Zeros are those among the codes, bits per weight are those of the coded codes, bytes all that
    the file holds of the layer; the range is that of its input, where the file was calibrated.

    Raises:
        FileNotFoundError, PackedFileError: as :func:`ptq_det.load_packed`.
    """
    local = PathManager.get_local_path(os.fspath(path))
    container = Container.read(local)
    packed = PackedModel.from_container(container, path)
    sizes = {name: tensor.nbytes for name, tensor in container.tensors.items()}
    file_bytes = os.path.getsize(local)
    rows = [_row(name, layer, sizes, packed.ranges) for name, layer in packed.layers.items()]
    headers = ["layer", "kind", "shape", "zeros %", "bits per weight", "bytes", "input range"]
    lines = [
        f"{os.fspath(path)}: packed model, format version {container.version}",
        f"architecture: {_architecture(packed)}",
        f"classes: {_classes(packed.classes)}",
        f"size: {file_bytes} bytes, {file_bytes / MIB:.2f} MiB; "
        f"in float32 {packed.float_bytes / MIB:.2f} MiB ({packed.float_bytes / file_bytes:.1f}x)",
        f"calibrated: {'yes' if packed.ranges else 'no'}",
        *(f"engine {name}: {_verdict(kind(), packed)}" for name, kind in ENGINE_REGISTRY),
        "",
        tabulate(rows, headers, tablefmt="github", disable_numparse=True),
    ]
    others = packed.others
    if others.shapes():
        own = {f"{name}.{part}" for name in packed.layers for part in PARTS}
        size = sum(size for name, size in sizes.items() if name not in own)
        lines += [
            "",
            f"other tensors: {len(others.shapes())}, {size} bytes "
            f"({len(others.parameters)} in int8)",
        ]
    return "\n".join(lines)


def _verdict(engine, packed: PackedModel) -> str:
    reason = engine.why_not(packed, None)
    return "may be named" if reason is None else f"cannot run it here: {reason}"


def _row(name: str, layer: PackedLayer, sizes: dict[str, int], ranges) -> list[str]:
    coded = sizes[f"{name}.{layer.coded_part}"]
    low, high = ranges.get(name, (None, None))
    bits = f" on {layer.activation_bits}-bit inputs" if layer.activation_bits else ""
    return [
        name,
        layer.kind + bits,
        " × ".join(map(str, layer.shape)),
        f"{100 * np.mean(layer.values == 0):.1f}" if layer.is_chosen else "",
        f"{8 * coded / layer.values.size:.3f}",
        str(sum(sizes.get(f"{name}.{part}", 0) for part in PARTS)),
        "" if low is None else f"{low:.3g} to {high:.3g}",
    ]


def _architecture(packed: PackedModel) -> str:
    if packed.architecture.is_given:
        return f"{packed.architecture} {json.loads(packed.config).get('_target_', '')}".rstrip()
    if not packed.architecture.has_config:
        return str(packed.architecture)
    model = packed.cfg().MODEL
    return f"{packed.architecture} {model.META_ARCHITECTURE}, {model.BACKBONE.NAME}"


def _classes(names: list[str]) -> str:
    if not names:
        return "not named"
    shown = ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")
    return f"{len(names)} ({shown})"
