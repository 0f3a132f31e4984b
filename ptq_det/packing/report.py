"""Where the bytes of a packed model are, before and after, and whether the file holds them."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch
from tabulate import tabulate

from ..files import MIB, replacing
from ..ternary.statistics import code_entropy
from .container import Container
from .names import PARTS
from .packed_layer import CHOSEN_KINDS, PackedLayer
from .packed_model import PackedModel

__all__ = ["LayerSize", "SizeReport", "draw_sizes", "measure_size"]

_PARTS_OF_MODEL = {  # by how the names of layers begin; the longest beginning counts
    "": "backbone",
    "backbone.fpn": "FPN",
    "backbone.top_block": "FPN",
    "proposal_generator": "RPN",
    "roi_heads": "box head",
    "roi_heads.mask_head": "mask head",
    "roi_heads.keypoint_head": "keypoint head",
    "head": "head",
    "roi_heads.box_predictor": "predictors",
    "roi_heads.mask_head.predictor": "predictors",
    "roi_heads.keypoint_head.score_lowres": "predictors",
    "proposal_generator.rpn_head.objectness_logits": "predictors",
    "proposal_generator.rpn_head.anchor_deltas": "predictors",
    "head.cls_score": "predictors",
    "head.bbox_pred": "predictors",
    "fc": "classifier",
    "classifier": "classifier",
}


@dataclass
class LayerSize:
    """Sizes of one layer, in bytes; bias and folded norm are counted where they are stored.

    Attributes:
        parameters: number of weights.
        float_bytes: weights, bias and norm in float32.
        two_bit_bytes: the codes at 2 bits each.
        five_trit_bytes: the codes at five a byte.
        iid_entropy_bytes: the codes at the entropy of their frequencies in this layer.
        coded_bytes: the codes in the file, with the tables that decode them.
        file_bytes: all that the file holds of the layer.
        bits_per_weight: 8 · coded_bytes / parameters.
        ratio: float_bytes / file_bytes.
        verified: the file, and the model built from it, have the very weights of the layer.
    """

    name: str
    part: str
    kind: str
    parameters: int
    sparsity: float
    float_bytes: int
    two_bit_bytes: int
    five_trit_bytes: int
    iid_entropy_bytes: float
    coded_bytes: int
    file_bytes: int
    bits_per_weight: float
    ratio: float
    verified: bool


@dataclass
class SizeReport:
    """Sizes of a packed model, in bytes; figures of the codes are sums over the ternary layers."""

    float_bytes: int
    file_bytes: int
    ratio: float
    sparsity: float
    bits_per_weight: float
    iid_entropy_bytes: float
    coded_bytes: int
    two_bit_bytes: int
    five_trit_bytes: int
    verified: bool
    one_shot: bool
    parts: dict[str, dict[str, int]]
    layers: list[LayerSize]

    def to_json(self) -> str:
        """All of it, as JSON."""
        return json.dumps(asdict(self), indent=1)

    def summary(self) -> str:
        """One line with sizes in MiB, the ratio and whether the file was verified."""
        verified = "file verified" if self.verified else "THE FILE DOES NOT HOLD THE MODEL"
        return (
            f"{self.float_bytes / MIB:.1f} MiB -> {self.file_bytes / MIB:.2f} MiB "
            f"({self.ratio:.1f}x), {self.bits_per_weight:.2f} bits per weight, {verified}"
        )

    def table(self) -> str:
        """A row a layer, then a row a part, as text."""
        rows = [
            [
                layer.name,
                layer.parameters,
                f"{100 * layer.sparsity:.1f}" if layer.kind in CHOSEN_KINDS else layer.kind,
                *(
                    _mib(size)
                    for size in (
                        layer.float_bytes,
                        layer.two_bit_bytes,
                        layer.five_trit_bytes,
                        layer.iid_entropy_bytes,
                        layer.coded_bytes,
                        layer.file_bytes,
                    )
                ),
                f"{layer.bits_per_weight:.3f}",
            ]
            for layer in self.layers
        ]
        headers = ["layer", "parameters", "zeros %", "float MiB", "2-bit MiB", "5 trits MiB"]
        headers += ["entropy MiB", "codes MiB", "in file MiB", "bits per weight"]
        parts = [
            [name, _mib(sizes["float_bytes"]), _mib(sizes["file_bytes"])]
            for name, sizes in self.parts.items()
        ]
        parts.append(["all", _mib(self.float_bytes), _mib(self.file_bytes)])
        return "\n".join(
            [
                tabulate(rows, headers, tablefmt="github", disable_numparse=True),
                "",
                tabulate(parts, ["part", "float MiB", "in file MiB"], tablefmt="github"),
            ]
        )


def measure_size(
    packed: PackedModel, output: str | os.PathLike | None = None, one_shot: bool = False
) -> SizeReport:
    """Write a packed model to a real file, load it back, compare every weight, count the bytes.

    Args:
        packed: the model.
        output: file to keep; without it a temporary one is written.
        one_shot: to be noted in the report: the weights were ternarized without fine-tuning.
    """
    with _file(output) as path:
        packed.write(path)
        held, all_held = _verify(path, packed)
        in_file = {name: tensor.nbytes for name, tensor in Container.read(path).tensors.items()}
        size = os.path.getsize(path)

    layers = [
        _layer_size(name, layer, in_file, held[name]) for name, layer in packed.layers.items()
    ]
    parts: dict[str, dict[str, int]] = {}
    for layer in layers:
        _add(parts, layer.part, layer.float_bytes, layer.file_bytes)
    for name, tensor in packed.others.state_dict().items():
        stored = [name, *(f"{name}.{part}" for part in PARTS)]
        _add(parts, _part(name), 4 * tensor.numel(), sum(in_file.get(each, 0) for each in stored))
    parts = {name: parts[name] for name in dict.fromkeys(_PARTS_OF_MODEL.values()) if name in parts}
    counted = sum(part["file_bytes"] for part in parts.values())
    _add(parts, "container", 0, size - counted)

    ternary = [layer for layer in layers if layer.kind in CHOSEN_KINDS]
    weights = sum(layer.parameters for layer in ternary)
    coded = sum(layer.coded_bytes for layer in ternary)
    float_bytes = sum(part["float_bytes"] for part in parts.values())
    return SizeReport(
        float_bytes=float_bytes,
        file_bytes=size,
        ratio=float_bytes / size,
        sparsity=sum(layer.sparsity * layer.parameters for layer in ternary) / weights,
        bits_per_weight=8 * coded / weights,
        iid_entropy_bytes=sum(layer.iid_entropy_bytes for layer in ternary),
        coded_bytes=coded,
        two_bit_bytes=sum(layer.two_bit_bytes for layer in ternary),
        five_trit_bytes=sum(layer.five_trit_bytes for layer in ternary),
        verified=all_held,
        one_shot=one_shot,
        parts=parts,
        layers=layers,
    )


def draw_sizes(report: SizeReport, path: str | os.PathLike) -> None:
    """Write a picture of where the bytes are: the parts of the float model and of the file."""
    import matplotlib.pyplot as plt  # of the extra `demo`; sizes are measured without

    figure, axes = plt.subplots(2, 1, figsize=(9, 4.2), layout="constrained")
    colors = dict(zip(report.parts, plt.cm.tab10.colors, strict=False))
    sides = [
        (f"float32: {report.float_bytes / MIB:.1f} MiB", "float_bytes", axes[0]),
        (f"packed file: {report.file_bytes / MIB:.2f} MiB", "file_bytes", axes[1]),
    ]
    for title, key, axis in sides:
        start = 0.0
        for name, part in report.parts.items():
            width = part[key] / MIB
            axis.barh(0, width, left=start, color=colors[name], label=name, edgecolor="white")
            share = part[key] / sum(p[key] for p in report.parts.values())
            if share > 0.04:
                axis.text(start + width / 2, 0, f"{100 * share:.0f} %", ha="center", va="center")
            start += width
        axis.set(title=title, yticks=[], xlim=(0, start), xlabel="MiB")
        axis.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    with replacing(path) as scratch:
        figure.savefig(scratch, dpi=120, format="png")
    plt.close(figure)


@contextmanager
def _file(output: str | os.PathLike | None) -> Iterator[str]:
    if output is not None:
        yield os.fspath(output)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield os.path.join(folder, "model.safetensors")


def _verify(path: str, packed: PackedModel) -> tuple[dict[str, bool], bool]:
    """Whether the file, and the model that is built from it, have these very weights.

    Returns:
        That of each layer, and of all there is.
    """
    loaded = PackedModel.read(path)
    model = loaded.build("cpu")
    held = {}
    for name, layer in packed.layers.items():
        built = model.get_submodule(name)
        bias = layer.float_bias()
        has_bias = built if built.bias is not None else getattr(built, "norm", None)
        held[name] = (
            np.array_equal(layer.values, loaded.layers[name].values)
            and np.array_equal(built.weight.numpy(), layer.weight())
            and (bias is None or np.array_equal(has_bias.bias.numpy(), bias))
        )
    wanted, found = packed.others.state_dict(), loaded.others.state_dict()
    others = wanted.keys() == found.keys() and all(
        torch.equal(tensor, found[name]) for name, tensor in wanted.items()
    )
    return held, others and all(held.values())


def _layer_size(name: str, layer: PackedLayer, in_file: dict[str, int], held: bool) -> LayerSize:
    codes = torch.from_numpy(layer.values)
    count = codes.numel()
    ternary = layer.kind == "ternary"
    coded = in_file[f"{name}.{layer.coded_part}"]
    file_bytes = sum(in_file.get(f"{name}.{part}", 0) for part in PARTS)
    vectors = 4 if layer.norm is not None else int(layer.bias is not None)
    float_bytes = 4 * (count + vectors * len(codes))
    return LayerSize(
        name=name,
        part=_part(name),
        kind=layer.kind,
        parameters=count,
        sparsity=float((codes == 0).sum()) / count,
        float_bytes=float_bytes,
        two_bit_bytes=-(-count // 4) if ternary else 0,
        five_trit_bytes=-(-count // 5) if ternary else 0,
        iid_entropy_bytes=float(code_entropy(codes)) * count / 8 if layer.is_chosen else 0.0,
        coded_bytes=coded,
        file_bytes=file_bytes,
        bits_per_weight=8 * coded / count,
        ratio=float_bytes / file_bytes,
        verified=held,
    )


def _part(name: str) -> str:
    return _PARTS_OF_MODEL[
        max((start for start in _PARTS_OF_MODEL if name.startswith(start)), key=len)
    ]


def _add(parts: dict[str, dict[str, int]], name: str, float_bytes: int, file_bytes: int) -> None:
    part = parts.setdefault(name, {"float_bytes": 0, "file_bytes": 0})
    part["float_bytes"] += float_bytes
    part["file_bytes"] += file_bytes


def _mib(size: float) -> str:
    return f"{size / MIB:.3f}"
