"""A model as one packed file, and back."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig
from torch import Tensor, nn

from ..config import add_ternary_config
from ..errors import InputError
from ..lazy import model_node, settings_in, training_sets
from ..plugins import base_config
from ..settings import TernarySettings
from ..ternary.ternarize import ternary_layers, unwrap
from .architecture import Architecture
from .claims import Claim, check_claims, check_density, check_total
from .container import Container, PackedFileError
from .encoded import Encoded, encode
from .filling import fill_model, plain_weights
from .given_model import emptied_copy, given_model
from .header import Header, class_names, names_in, number_in, number_of_classes
from .lazy_config import lazy_text, read_lazy
from .model_config import config_text, is_json, merge_config
from .other_tensors import OtherTensors, pack_others
from .outputs import check_outputs
from .pack_layer import pack_layers
from .packable import check_packable, check_packed
from .packed_layer import PackedLayer
from .skeleton import build_skeleton

__all__ = ["PackedModel", "pack_model", "packed_config"]


def pack_model(
    model: nn.Module,
    cfg: CfgNode | DictConfig | TernarySettings | Mapping[str, Any],
    path: str | os.PathLike,
) -> None:
    """Write a ternary model to one file, which :func:`ptq_det.load_packed` makes a model
    of again.

    Ternary layers are stored as codes and scales, batch norms are folded into scale and bias, and
    layers and matrices that are not ternary are stored as ``TERNARY.FLOAT_LAYERS`` says; other
    parameters are stored in float16, buffers as they are. The file appears when it is whole.

    Args:
        model: a model with ternary layers.
        cfg: the config it was built from; stored without ``MODEL.WEIGHTS`` and ``OUTPUT_DIR``. Or a
            lazy config, whose node ``model`` builds it and travels as data; or, for a model of code
            alone, settings as :func:`ptq_det.ternarize` takes them. Who loads the file of one of
            these gives the model.
        path: file to write; by convention its name ends in ``.safetensors``.

    Raises:
        InputError: the model has no ternary layers, or values that are not finite or that a file
            has no form for, or its config builds another one, or what the file would compute is not
            what the model does.
        OSError: the file cannot be written; a file that was there before is left as it was.
    """
    PackedModel.of(model, cfg).write(path)


def packed_config(path: str | os.PathLike, cfg: CfgNode | None = None) -> CfgNode:
    """The config of a packed model, ready for ``DefaultPredictor``: its weights are the file.

    Args:
        path: packed file.
        cfg: config into which the file's is merged, e.g. one with the keys of a project
            (PointRend), which count only then; without it Detectron2's defaults with the keys of
            plugins (docs/extending.md). It is not changed.

    Raises:
        FileNotFoundError, PackedFileError: as :func:`ptq_det.load_packed`.
        InputError: the file has none, as its model is built otherwise.
    """
    cfg = PackedModel.read(path, weights=False, base=cfg).cfg()
    cfg.MODEL.WEIGHTS = os.fspath(path)
    cfg.MODEL.DEVICE = _default_device()
    return cfg


@dataclass
class PackedModel:
    """What a packed file holds, in memory.

    Attributes:
        layers: by the layer's name in the model.
        others: parameters and buffers that belong to no such layer.
        config: text of the model's config (:mod:`.model_config`, :mod:`.lazy_config`).
        architecture: what network the file is for.
        classes: names of the classes, where they are known.
        path: file it was read from.
        ranges: of the activations, where it was calibrated (:mod:`ptq_det.inference`).
        base: the reader's config, whose keys of projects count; Detectron2's without.
        override: a config to build the model by in place of the file's.
        model: the reader's model, which is copied in place of building one; it is not changed.
    """

    layers: dict[str, PackedLayer]
    others: OtherTensors
    config: str
    architecture: Architecture = field(default_factory=Architecture)
    classes: list[str] = field(default_factory=list)
    path: str = ""
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    base: CfgNode | None = None
    override: CfgNode | None = None
    model: nn.Module | None = None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        cfg: CfgNode | DictConfig | TernarySettings | Mapping[str, Any],
        architecture: Architecture | None = None,
    ) -> "PackedModel":
        """The packed form of a model; ``cfg`` and errors as :func:`pack_model` has them.

        It is built again and compared with the model: what it computes is what the model does.
        """
        packed = cls.unchecked(model, cfg, architecture)
        packed.check()
        model = unwrap(model)
        built = packed.build("cpu")
        check_outputs(model, packed.layers, packed.others, built, packed.architecture)
        return packed

    @classmethod
    def unchecked(
        cls,
        model: nn.Module,
        cfg: CfgNode | DictConfig | TernarySettings | Mapping[str, Any],
        architecture: Architecture | None = None,
    ) -> "PackedModel":
        """As :meth:`of`, not built again: for its size alone."""
        model = unwrap(model)
        if not ternary_layers(model):
            raise InputError("the model has no ternary layers to pack; call ternarize(model, cfg)")
        check_packable(model)
        if architecture is None:
            architecture = Architecture("detectron2" if isinstance(cfg, CfgNode) else "module")
        modes = [(module, module.training) for module in model.modules()]
        model.eval()  # as which layers take weights that are ternary already as they are
        try:
            layers = pack_layers(model, settings_in(cfg).float_layers)
        finally:
            for module, training in modes:
                module.training = training
        others = pack_others(model, layers, settings_in(cfg).float_layers)
        check_packed(model, layers, others)
        if architecture.has_config:
            text, classes = config_text(cfg), class_names(cfg)
            return cls(layers, others, text, architecture, classes, base=cfg)
        if architecture.is_given:
            node = model_node(cfg)
            text, reference = lazy_text(node), model if node is None else given_model(node)
            classes = [] if node is None else names_in(training_sets(cfg), number_in(reference))
            return cls(layers, others, text, architecture, classes, model=reference)
        return cls(layers, others, "{}", architecture)

    def write(self, path: str | os.PathLike) -> None:
        """Write the file; it appears when it is whole.

        Raises:
            PackedFileError: the config does not build this model; nothing is written then.
            OSError: the file cannot be written.
        """
        self.check()
        self.to_container().write(path)

    def to_container(self) -> Container:
        """What the file holds."""
        tensors, fields = encode(self.layers, self.others)
        metadata = {
            "architecture": json.dumps(self.architecture.to_json()),
            "config": config_text(self.cfg()) if self.architecture.has_config else self.config,
            "classes": json.dumps(self.classes, ensure_ascii=False),
            "layers": fields,
        }
        if self.ranges:
            metadata["ranges"] = json.dumps(self.ranges, separators=(",", ":"))
        return Container(tensors, metadata)

    @classmethod
    def read(
        cls,
        path: str | os.PathLike,
        weights: bool = True,
        base: CfgNode | None = None,
        model: nn.Module | DictConfig | None = None,
    ) -> "PackedModel":
        """Read a file; errors as :func:`ptq_det.load_packed` has them.

        Args:
            weights: decode the layers; without, only the config and the names are read.
            base: as the attribute.
            model: as :func:`ptq_det.load_packed` has it.
        """
        local = PathManager.get_local_path(os.fspath(path))
        return cls.from_container(Container.read(local), path, weights, base, model)

    @classmethod
    def from_container(
        cls,
        container: Container,
        path: str | os.PathLike,
        weights: bool = True,
        base: CfgNode | None = None,
        model: nn.Module | DictConfig | None = None,
    ) -> "PackedModel":
        """What a container holds; arguments and errors as :meth:`read`.

        What is claimed is held against the model of the config, or the one that is given, before
        anything is decoded. Where there is neither, layers can be looked at and no model is built.
        """
        name = os.fspath(path)
        head = Header.of(container.metadata, name)
        packed = cls(
            {},
            OtherTensors(),
            head.config,
            head.architecture,
            head.classes,
            name,
            head.ranges,
            base,
        )
        packed.model = None if model is None else given_model(model)
        if head.architecture.is_given:
            read_lazy(head.config, name)
        packed._check_classes()
        if not weights:
            return packed
        encoded = Encoded.of(head, container.tensors, name)
        packed.others.tensors = encoded.others
        claims, parameters = encoded.claims()
        if not packed._is_built():
            check_density(claims, parameters, encoded.coded_bytes, name)
        packed._check(claims, parameters)
        packed.layers, packed.others.parameters = encoded.decode()
        return packed

    def check(self) -> None:
        """Compare what there is with the model of the config, by names and shapes.

        Raises:
            PackedFileError: they do not fit.
        """
        parameters = {name: each.shape for name, each in self.others.parameters.items()}
        self._check({name: Claim.of(layer) for name, layer in self.layers.items()}, parameters)

    def _check(self, layers: dict[str, Claim], parameters: dict[str, tuple[int, ...]]) -> None:
        shapes = {name: value.shape for name, value in self.others.tensors.items()}
        twice = shapes.keys() & parameters.keys()
        if twice:
            raise PackedFileError(self.path, f"it has {min(twice)!r} twice")
        check_total(layers, parameters, self.path)
        if self._is_built():
            check_claims(layers, shapes | parameters, self._build_empty("meta"), self.path)

    def cfg(self) -> CfgNode:
        """The config of the model, with a node ``TERNARY`` that makes nothing in it ternary again.

        Raises:
            PackedFileError: it cannot be read.
            InputError: the file has none.
        """
        if self.override is None and not self.architecture.has_config:
            raise InputError(f"{self.path} has no config of Detectron2; {self._what_to_give()}")
        cfg = (self.override or self.base or base_config()).clone()
        cfg.defrost()
        if self.override is None:
            merge_config(self.config, cfg, self.path)
        # How it was trained does not matter any more.
        cfg.pop("TERNARY", None)
        add_ternary_config(cfg)
        cfg.TERNARY.SKIP = ["*"]
        return cfg

    def _check_classes(self) -> None:
        """Hold the number of names against the model's classes.

        Files with YAML are of releases that took the names of the test set, however many; theirs
        are passed over.

        Raises:
            PackedFileError: there are names, and not as many as the model has classes.
        """
        if self.architecture.has_config:
            expected = number_of_classes(self.cfg())
        elif self.architecture.is_given:
            expected = None if self.model is None else number_in(self.model)
        else:
            expected = self.architecture.classes
        if not self.classes or expected is None or len(self.classes) == expected:
            return
        if is_json(self.config):
            reason = f"it names {len(self.classes)} classes, and its model has {expected}"
            raise PackedFileError(self.path, reason)
        self.classes = []

    def _is_built(self) -> bool:
        """Whether there is a model to fill, or what builds one."""
        given = self.model is not None or self.override is not None
        return given or not self.architecture.is_given

    def _what_to_give(self) -> str:
        if not self.architecture.is_given:
            return f"it is for {self.architecture}"
        made = json.loads(self.config).get("_target_", "a module")
        return (
            f"its model ({made}) is built by code, and no code is run that a file names; give the "
            "model: load_packed(path, model=instantiate(cfg.model)), with the lazy config cfg"
        )

    def _build_empty(self, device: str) -> nn.Module:
        if self.model is not None:
            return emptied_copy(self.model, device)
        if not self._is_built():
            raise PackedFileError(self.path, self._what_to_give())
        is_known = self.override is not None or self.architecture.has_config
        return build_skeleton(
            self.architecture, self.cfg() if is_known else None, self.path, device
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Weights by the keys of a plain checkpoint; a folded norm becomes one that only shifts."""
        return plain_weights(self.layers, self.others)

    @property
    def float_bytes(self) -> int:
        """Size of the same model in float32, its norms included."""
        return 4 * sum(tensor.numel() for tensor in self.state_dict().values())

    def skeleton(self) -> nn.Module:
        """A plain model on the CPU that these layers and tensors fit; its weights are arbitrary.

        Raises:
            PackedFileError: it cannot be built, or they do not fit it.
        """
        if self.override is not None:  # its own config was held against the file when it was read
            self.check()
        return self._build_empty("cpu")

    @torch.no_grad()
    def build(self, device: str | torch.device | None = None) -> nn.Module:
        """A model with these weights; folded norms are gone from it.

        Raises:
            PackedFileError: as :meth:`skeleton`.
        """
        model = self.skeleton()
        fill_model(model, self.layers, self.others)
        model.requires_grad_(False)
        return model.eval().to(device or _default_device())


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
