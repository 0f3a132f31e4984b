"""The values of ``cfg.TERNARY``, checked."""

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from detectron2.config import CfgNode
from omegaconf import OmegaConf

from .config import add_ternary_config
from .engines import ENGINE_REGISTRY
from .errors import InputError
from .quantizers import QUANTIZER_REGISTRY, Quantizer, all_options, build_quantizer, options_of

__all__ = ["TernarySettings"]

_CHOICES = {
    "threshold": ("layer", "network"),
    "optimizer": ("SGD", "AdamW"),
    "decay_toward": ("codes", "zero"),
    "float_layers": ("int8", "float16"),
    "activation_bits": (0, 2, 3, 4, 5, 6, 7, 8),
}
_MOST_ZEROS = 0.99  # beyond it whole filters, and small layers, are empty
_SPARSITIES = f"sparsities from 0 to {_MOST_ZEROS}"


@dataclass(frozen=True)
class TernarySettings:
    """What ``cfg.TERNARY`` says; a field has the name of its key.

    Attributes:
        options: of all registered quantizers, by the names of their constructors' arguments.

    Raises:
        InputError: a value is not allowed; the message has the key, the value and what is.
    """

    enabled: bool
    quantizer: str
    options: Mapping[str, Any]
    activation_bits: int
    sparsity: float
    sparsity_overrides: tuple[tuple[str, float], ...]
    skip: tuple[str, ...]
    target_mib: float
    threshold: str
    decay: float
    decay_toward: str
    compensation: int
    distillation: float
    prune_end: float
    freeze_start: float
    optimizer: str
    float_layers: str
    engine: str
    require_trained: bool

    @staticmethod
    def is_ternary_config(cfg: CfgNode) -> bool:
        """Whether a model built from ``cfg`` has ternary layers.

        Either ``TERNARY.ENABLED`` is set or a registered ternary builder is named.
        """
        names = (
            cfg.MODEL.BACKBONE.NAME,
            cfg.MODEL.RPN.HEAD_NAME,
            cfg.MODEL.ROI_HEADS.NAME,
            cfg.MODEL.ROI_BOX_HEAD.NAME,
            cfg.MODEL.ROI_MASK_HEAD.NAME,
        )
        enabled = "TERNARY" in cfg and cfg.TERNARY.ENABLED
        return enabled or any("ternary" in name.lower() for name in names)

    @classmethod
    def of(cls, source: "CfgNode | TernarySettings | Mapping[str, Any]") -> "TernarySettings":
        """Settings from wherever they stand.

        Args:
            source: a full config; settings; or their values by the names of the keys in lower case,
                e.g. a node of a lazy config, as :meth:`make` has them.

        Raises:
            InputError: a key is not known, or a value not allowed.
        """
        if isinstance(source, CfgNode):
            return cls.from_cfg(source)
        if isinstance(source, TernarySettings):
            return source
        if OmegaConf.is_config(source):
            source = OmegaConf.to_container(source, resolve=True)
        if not isinstance(source, Mapping):
            raise InputError(
                f"{type(source).__name__} holds no settings; give a config with the node TERNARY, "
                "or keys and values, e.g. {'sparsity': 0.8}"
            )
        return cls.make(**source)

    @classmethod
    def make(cls, **values) -> "TernarySettings":
        """Settings without a config.

        Args:
            values: of keys of ``TERNARY``, by their names in lower case; others have defaults.
                ``enabled`` is True.

        Raises:
            InputError: a key is not known, or a value not allowed.
        """
        cfg = CfgNode()
        add_ternary_config(cfg)
        for name, value in {"enabled": True, **values}.items():
            if name != name.lower() or name.upper() not in cfg.TERNARY:
                known = ", ".join(sorted(key.lower() for key in cfg.TERNARY))
                raise InputError(f"{name!r} is no setting; there are {known}")
            if OmegaConf.is_config(value):
                value = OmegaConf.to_container(value, resolve=True)
            cfg.TERNARY[name.upper()] = list(value) if isinstance(value, tuple) else value
        return cls.from_cfg(cfg)

    @classmethod
    def from_cfg(cls, cfg: CfgNode) -> "TernarySettings":
        """Read and check a full config; one without the node has the node's defaults.

        Raises:
            InputError: a key is not known, or a value not allowed.
        """
        if "TERNARY" not in cfg:
            cfg = cfg.clone()
            cfg.defrost()
            add_ternary_config(cfg)
        node, options = cfg.TERNARY, all_options()
        if not isinstance(node, CfgNode):
            raise InputError(f"TERNARY is {node!r}; it has keys of its own, e.g. TERNARY.ENABLED")
        own = {field.name for field in fields(cls)} - {"options"}
        taken = sorted(own & set(options))
        if taken:
            raise InputError(
                f"a quantizer has the option {taken[0]!r}, but TERNARY.{taken[0].upper()} is a key "
                "of its own; give the argument of its constructor another name"
            )
        known = {name.upper() for name in (*own, *options)}
        unknown = sorted(set(node) - known)
        if unknown:
            raise InputError(
                f"TERNARY.{unknown[0]} is not a key; the keys are {', '.join(sorted(known))}"
            )
        missing = sorted({name.upper() for name in own} - set(node))
        if missing:
            raise InputError(
                f"the node TERNARY lacks {', '.join(missing)}; call add_ternary_config(cfg) before "
                "anything is merged into the config, and set single keys of the node alone"
            )
        values = {name: node[name.upper()] for name in own}
        values["options"] = {
            name: node.get(name.upper(), option.default) for name, option in options.items()
        }
        for name, what in (("skip", "name patterns"), ("sparsity_overrides", "pairs")):
            is_list = isinstance(values[name], (list, tuple))
            _require(name, values[name], is_list, f"a list of {what}")
        values["skip"] = tuple(values["skip"])
        values["sparsity_overrides"] = tuple(map(_pair, values["sparsity_overrides"]))
        return cls(**values)

    def __post_init__(self):
        choices = {
            "quantizer": tuple(name for name, _ in QUANTIZER_REGISTRY),
            "engine": ("", *(name for name, _ in ENGINE_REGISTRY)),
            **_CHOICES,
        }
        for name, allowed in choices.items():
            _require(name, getattr(self, name), getattr(self, name) in allowed, _either(allowed))
        for name, option in all_options().items():
            value = self.options[name]
            _require(name, value, option.allows(value), option.allowed())
        quantizer = self.build_quantizer()
        _require("sparsity", self.sparsity, _is_sparsity(self.sparsity), _SPARSITIES)
        for pair in self.sparsity_overrides:
            _require("sparsity_overrides", pair, _is_sparsity(pair[1]), _SPARSITIES)
        self._check_target(quantizer)
        for name in ("decay", "distillation"):
            value = getattr(self, name)
            _require(name, value, _is_number(value) and value >= 0, "at least 0")
        for name in ("prune_end", "freeze_start"):
            value = getattr(self, name)
            _require(name, value, _is_number(value) and 0 <= value <= 1, "a number in [0, 1]")
        _require(
            "freeze_start",
            self.freeze_start,
            self.freeze_start >= self.prune_end,
            f"at least TERNARY.PRUNE_END, which is {self.prune_end}",
        )
        _require(
            "freeze_start",
            self.freeze_start,
            self.freeze_start == 1 or quantizer.freezes,
            f"1.0 with {self.quantizer}, which has no frozen stage",
        )
        _require(
            "threshold",
            self.threshold,
            self.threshold == "layer" or not self.sparsity_overrides,
            '"layer" where TERNARY.SPARSITY_OVERRIDES is set',
        )
        _require(
            "threshold",
            self.threshold,
            self.threshold == "layer" or quantizer.follows_sparsity,
            f'"layer" with {self.quantizer}, which does not follow TERNARY.SPARSITY',
        )
        _require(
            "compensation",
            self.compensation,
            isinstance(self.compensation, int) and self.compensation >= 0,
            "a number of batches",
        )
        suits = quantizer.follows_sparsity and quantizer.levels == quantizer.signs == 1
        if quantizer.compensates and not suits:
            raise InputError(
                f"the quantizer {self.quantizer} says that it compensates, for which it must "
                "follow the sparsity, be ternary and have one scale for both signs"
            )
        _require(
            "compensation",
            self.compensation,
            not self.compensates or (self.threshold == "layer" and self.prune_end == 0),
            "0 with a pruning stage (TERNARY.PRUNE_END above 0) or one threshold for the network",
        )
        for pattern in self.skip:
            _require("skip", pattern, isinstance(pattern, str), "name patterns")

    def _check_target(self, quantizer: Quantizer) -> None:
        value = self.target_mib
        _require("target_mib", value, _is_number(value) and value >= 0, "at least 0")
        if value == 0:
            return
        _require(
            "target_mib",
            value,
            quantizer.follows_sparsity,
            f"0 with {self.quantizer}, which does not follow a sparsity",
        )
        _require("target_mib", value, self.threshold == "layer", "0 with one network's threshold")

    @property
    def compensates(self) -> bool:
        """Whether weights are made ready on training pictures; only some quantizers let them be."""
        return self.compensation > 0 and self.build_quantizer().compensates

    def build_quantizer(self) -> Quantizer:
        """The quantizer with those of the options that it has."""
        own = options_of(QUANTIZER_REGISTRY.get(self.quantizer))
        return build_quantizer(self.quantizer, **{name: self.options[name] for name in own})

    def reason_to_skip(self, name: str, kept: str | None = None) -> str | None:
        """Why a layer stays in float, or None where it is to be ternary.

        Args:
            name: the layer's full name.
            kept: why it does by default (:mod:`ptq_det.ternary.kept_layers`), or None. The last
                pattern of ``SKIP`` that matches the name has the last word.
        """
        for pattern in self.skip:
            if pattern.startswith("!") and fnmatch.fnmatchcase(name, pattern[1:]):
                kept = None
            elif fnmatch.fnmatchcase(name, pattern):
                kept = f"TERNARY.SKIP has {pattern!r}"
        return kept

    def sparsity_of(self, name: str) -> float:
        """Target sparsity of the layer with this full name."""
        value = self.sparsity
        for pattern, override in self.sparsity_overrides:
            if fnmatch.fnmatchcase(name, pattern):
                value = override
        return value


def _pair(item) -> tuple[str, float]:
    is_pair = isinstance(item, (list, tuple)) and len(item) == 2 and isinstance(item[0], str)
    _require("sparsity_overrides", item, is_pair, "pairs of a name pattern and a sparsity")
    return tuple(item)


def _is_number(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_sparsity(value) -> bool:
    return _is_number(value) and 0 <= value <= _MOST_ZEROS


def _either(allowed: tuple) -> str:
    return " or ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in allowed)


def _require(name: str, value, condition: bool, allowed: str) -> None:
    if not condition:
        raise InputError(f"TERNARY.{name.upper()} is {value!r}; allowed: {allowed}")
