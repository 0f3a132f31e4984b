"""A model as one packed file, and back."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn

from ..config import add_ternary_config
from ..errors import InputError
from ..ternary.activations import fix_input
from ..ternary.layers import is_layer
from ..ternary.ternarize import ternary_layers, unwrap
from .architecture import Architecture
from .container import Container, PackedFileError
from .header import architecture_of, checked_ranges, class_names, config_text
from .names import PARTS
from .pack_layer import other_tensors, pack_layers
from .packed_layer import PackedLayer
from .skeleton import bias_of, build_skeleton, fill_layer

__all__ = ["PackedModel", "pack_model", "packed_config"]

_THREADS = 2


def pack_model(model: nn.Module, cfg: CfgNode, path: str | os.PathLike) -> None:
    """Write a ternary model to one file, which :func:`ptq_det.load_packed` makes a model
    of again.

    Ternary layers are stored as codes and scales, batch norms are folded into scale and bias, and
    layers that are not ternary are stored as ``TERNARY.FLOAT_LAYERS`` says. The file appears when
    it is whole.

    Args:
        model: a model with ternary layers.
        cfg: the config it was built from; stored without ``MODEL.WEIGHTS`` and ``OUTPUT_DIR``.
        path: file to write; by convention its name ends in ``.safetensors``.

    Raises:
        InputError: the model has no ternary layers.
        OSError: the file cannot be written; a file that was there before is left as it was.
    """
    PackedModel.of(model, cfg).write(path)


def packed_config(path: str | os.PathLike) -> CfgNode:
    """The config of a packed model, ready for ``DefaultPredictor``: its weights are the file.

    Raises:
        FileNotFoundError, PackedFileError: as :func:`ptq_det.load_packed`.
    """
    cfg = PackedModel.read(path, weights=False).cfg()
    cfg.MODEL.WEIGHTS = os.fspath(path)
    cfg.MODEL.DEVICE = _default_device()
    return cfg


@dataclass
class PackedModel:
    """What a packed file holds, in memory.

    Attributes:
        layers: by the layer's name in the model.
        tensors: parameters and buffers that belong to no such layer, by name.
        config: YAML of the model's config.
        architecture: what network the file is for.
        classes: names of the classes, where they are known.
        path: file it was read from.
        ranges: of the activations, where it was calibrated (:mod:`ptq_det.inference`).
    """

    layers: dict[str, PackedLayer]
    tensors: dict[str, np.ndarray]
    config: str
    architecture: Architecture = field(default_factory=Architecture)
    classes: list[str] = field(default_factory=list)
    path: str = ""
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, model: nn.Module, cfg: CfgNode, architecture: Architecture | None = None
    ) -> "PackedModel":
        """The packed form of a model; ``cfg`` and errors as :func:`pack_model` has them."""
        model = unwrap(model)
        if not ternary_layers(model):
            raise InputError("the model has no ternary layers to pack; call ternarize(model, cfg)")
        architecture = architecture or Architecture()
        modes = [(module, module.training) for module in model.modules()]
        model.eval()  # as which layers take weights that are ternary already as they are
        layers = pack_layers(model, cfg.TERNARY.FLOAT_LAYERS)
        for module, training in modes:
            module.training = training
        others = other_tensors(model, layers)
        if not architecture.is_detector:
            return cls(layers, others, CfgNode({"TERNARY": cfg.TERNARY}).dump(), architecture)
        return cls(layers, others, config_text(cfg), architecture, class_names(cfg))

    def write(self, path: str | os.PathLike) -> None:
        """Write the file; it appears when it is whole."""
        tensors, fields = dict(self.tensors), {}
        for name, layer in self.layers.items():
            fields[name] = layer.to_metadata()
            tensors |= {f"{name}.{part}": value for part, value in layer.to_tensors().items()}
        metadata = {
            "architecture": json.dumps(self.architecture.to_json()),
            "config": self.config,
            "classes": json.dumps(self.classes, ensure_ascii=False),
            "layers": json.dumps(fields, separators=(",", ":")),
        }
        if self.ranges:
            metadata["ranges"] = json.dumps(self.ranges, separators=(",", ":"))
        Container(tensors, metadata).write(path)

    @classmethod
    def read(cls, path: str | os.PathLike, weights: bool = True) -> "PackedModel":
        """Read a file; errors as :func:`ptq_det.load_packed` has them.

        Args:
            weights: decode the layers; without, only the config and the names are read.
        """
        local = PathManager.get_local_path(os.fspath(path))
        return cls.from_container(Container.read(local), path, weights)

    @classmethod
    def from_container(
        cls, container: Container, path: str | os.PathLike, weights: bool = True
    ) -> "PackedModel":
        """What a container holds; arguments and errors as :meth:`read`."""
        try:
            texts = container.metadata
            fields = json.loads(texts["layers"])
            architecture, classes = architecture_of(path, texts), json.loads(texts["classes"])
            ranges = checked_ranges(path, json.loads(texts.get("ranges", "{}")))
            tensors = dict(container.tensors) if weights else {}
            parts = {
                name: {p: tensors.pop(f"{name}.{p}") for p in PARTS if f"{name}.{p}" in tensors}
                for name in fields
            }

            def decode(name):
                try:
                    return PackedLayer.from_file(fields[name], parts[name])
                except ValueError as error:
                    raise PackedFileError(path, f"layer {name!r}: {error}") from error

            with ThreadPoolExecutor(_THREADS) as pool:  # sorting runs beside decoding
                names = list(fields) if weights else []
                layers = dict(zip(names, pool.map(decode, names), strict=True))
            config, name = texts["config"], os.fspath(path)
            return cls(layers, tensors, config, architecture, classes, name, ranges)
        except (KeyError, TypeError, AttributeError) as error:
            raise PackedFileError(path, f"its header lacks {error}") from error
        except json.JSONDecodeError as error:
            raise PackedFileError(path, f"its header is no JSON ({error})") from error

    def cfg(self) -> CfgNode:
        """The config of the model, with a node ``TERNARY`` that makes nothing in it ternary again.

        Raises:
            PackedFileError: it cannot be read.
        """
        cfg = get_cfg()
        try:
            stored = CfgNode(yaml.safe_load(self.config))
            # How it was trained does not matter any more, and other versions had other keys.
            stored.pop("TERNARY", None)
            cfg.set_new_allowed(True)  # nodes of other plugins, keys of other versions
            cfg.merge_from_other_cfg(stored)
        except (yaml.YAMLError, ValueError, KeyError, TypeError, AssertionError) as error:
            raise PackedFileError(self.path, f"its config cannot be read ({error})") from error
        add_ternary_config(cfg)
        cfg.TERNARY.SKIP = ["*"]
        return cfg

    def state_dict(self) -> dict[str, Tensor]:
        """Weights by the keys of a plain checkpoint; a folded norm becomes one that only shifts."""
        weights = {name: torch.from_numpy(value) for name, value in self.tensors.items()}
        for name, layer in self.layers.items():
            weights[f"{name}.weight"] = torch.from_numpy(layer.weight())
            bias = bias_of(layer)
            if layer.norm is None:
                if bias is not None:
                    weights[f"{name}.bias"] = bias
                continue
            one = torch.ones(len(bias))
            weights |= {
                f"{layer.norm}.weight": one,
                f"{layer.norm}.bias": bias,
                f"{layer.norm}.running_mean": torch.zeros_like(one),
                f"{layer.norm}.running_var": one - layer.norm_eps,
            }
        return weights

    @property
    def float_bytes(self) -> int:
        """Size of the same model in float32, its norms included."""
        return 4 * sum(tensor.numel() for tensor in self.state_dict().values())

    def fix_inputs(self, model: nn.Module) -> None:
        """Let the layers of a plain model quantize their inputs as the packed ones say."""
        for name, layer in self.layers.items():
            module = _submodule(model, name)
            if layer.activation_bits and module is not None:
                fix_input(module, layer.activation_bits, layer.clip)

    def skeleton(self) -> nn.Module:
        """A plain model on the CPU that these layers and tensors fit; its weights are arbitrary.

        Raises:
            PackedFileError: it cannot be built, or they do not fit it.
        """
        model = build_skeleton(self.architecture, self.cfg, self.path)
        others = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        for name, layer in self.layers.items():
            module = _submodule(model, name)
            found = tuple(module.weight.shape) if is_layer(module) else None
            if found != layer.shape:
                raise self._unfit(name, layer.shape, found)
            if (layer.bias is None) != (module.bias is None) and layer.norm is None:
                raise PackedFileError(self.path, f"the bias of {name!r} does not fit its config")
            if layer.norm is not None and _submodule(model, layer.norm) is None:
                raise PackedFileError(self.path, f"its config has no such norm as {layer.norm!r}")
            inside = (f"{name}.weight", f"{name}.bias", f"{layer.norm}.")
            others = {key: shape for key, shape in others.items() if not key.startswith(inside)}
        tensors = {name: value.shape for name, value in self.tensors.items()}
        for name in sorted({*others, *tensors}):
            if others.get(name) != tensors.get(name):
                raise self._unfit(name, tensors.get(name), others.get(name))
        return model

    def _unfit(self, name: str, here, there) -> PackedFileError:
        return PackedFileError(
            self.path,
            f"{name!r} has the shape {here} in the file and {there} in its config's model",
        )

    @torch.no_grad()
    def build(self, device: str | torch.device | None = None) -> nn.Module:
        """A model with these weights; folded norms are gone from it.

        Raises:
            PackedFileError: as :meth:`skeleton`.
        """
        model = self.skeleton()
        for name, layer in self.layers.items():
            fill_layer(model.get_submodule(name), layer)
            if layer.norm is not None:
                _remove_norm(model, layer.norm)
        weights = {name: torch.from_numpy(value) for name, value in self.tensors.items()}
        model.load_state_dict(weights, strict=False)
        self.fix_inputs(model)
        model.requires_grad_(False)
        return model.eval().to(device or _default_device())


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _remove_norm(model: nn.Module, name: str) -> None:
    parent, _, attribute = name.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, attribute, None if isinstance(owner, nn.Conv2d) else nn.Identity())
