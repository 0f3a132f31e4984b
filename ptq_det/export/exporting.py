"""Exports a packed detector to ONNX, and compares what was exported with it."""

import os
from collections.abc import Iterable

import numpy as np
import onnx
from detectron2.utils.file_io import PathManager

from ..files import replacing
from ..packing.packed_model import PackedModel
from .comparison import compare_detections, compare_layers, noise, require_runs
from .decode import fill, metadata_of, read_graph, require_another
from .layers import Computed
from .model import build_graph

__all__ = ["export_onnx"]


def export_onnx(
    packed: str | os.PathLike,
    output: str | os.PathLike,
    int8: bool = False,
    size: tuple[int, int] | None = None,
    vnni: bool = False,
    weightless: bool = False,
    pictures: Iterable[np.ndarray] | None = None,
) -> None:
    """Write the ONNX model of a packed detector, after comparing the two.

    Args:
        packed: packed file.
        output: file to write; it appears when it has been compared.
        int8: compute on uint8 activations and int8 weights; the file has to be calibrated.
        size: height and width of the picture that the model takes; any without.
        vnni: whether the target multiplies uint8 by int8 without saturating; without, weights of
            layers that are not ternary have 7 bits.
        weightless: write the graph alone, which :func:`~.decode.decode` fills on a device.
        pictures: uint8 ``(height, width, 3)`` in the model's channel order, to compare on; noise
            without.

    Raises:
        FileNotFoundError, PackedFileError: as :func:`ptq_det.load_packed`.
        InputError: the model has a part that the export does not know, or the file no ranges, or
            the exported model disagrees; nothing is written then.
    """
    path = PathManager.get_local_path(os.fspath(packed))
    require_another(output, path)
    model = PackedModel.read(path)
    options = dict(int8=int8, size=size, wide=vnni)
    graph = build_graph(model, **options)
    with replacing(output) as scratch:
        scratch.write_bytes(graph.SerializeToString())
        data, metadata = read_graph(scratch)
        complete = fill(data, metadata, path)
        onnx.checker.check_model(complete, full_check=True)
        shown, built = list(pictures or noise(size)), model.build("cpu")
        require_runs(complete, shown)
        if not int8:
            compare_detections(built, complete, shown, exactly=True)
        # At no threshold any picture has as many detections as there may be.
        exact = build_graph(model, size=size, threshold=0.0)
        compare_detections(built, _filled(exact, path), shown)
        if int8:
            computed: list[Computed] = []
            rounded = build_graph(model, **options, threshold=0.0, computed=computed)
            compare_layers(built, _filled(rounded, path), computed, shown[0], vnni)
        if not weightless:
            scratch.write_bytes(complete)


def _filled(graph: onnx.ModelProto, path: str) -> bytes:
    data = graph.SerializeToString()
    return fill(data, metadata_of(data), path)
