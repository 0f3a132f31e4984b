"""The values of ``cfg.TERNARY``, checked."""

import fnmatch
from dataclasses import dataclass, fields

from detectron2.config import CfgNode

from .config import add_ternary_config
from .errors import InputError
from .quantizers import QUANTIZER_REGISTRY

__all__ = ["TernarySettings"]

_CHOICES = {
    "quantizer": tuple(name for name, _ in QUANTIZER_REGISTRY),
    "normalize": ("filter", "layer"),
    "scale": ("mean", "norm", "learned", "shift"),
    "threshold": ("layer", "network"),
    "optimizer": ("SGD", "AdamW"),
    "decay_toward": ("codes", "zero"),
    "float_layers": ("int8", "float16"),
    "engine": ("float", "int8"),
    "bits": (2, 4),
    "shift_bits": (0, 1, 2, 3, 4),
    "activation_bits": (0, 2, 3, 4, 5, 6, 7, 8),
}


@dataclass(frozen=True)
class TernarySettings:
    """What ``cfg.TERNARY`` says; a field has the name of its key.

    Raises:
        InputError: a value is not allowed; the message has the key, the value and what is.
    """

    enabled: bool
    quantizer: str
    bits: int
    sigma: float
    shift_bits: int
    activation_bits: int
    sparsity: float
    match_sparsity: bool
    sparsity_overrides: tuple[tuple[str, float], ...]
    skip: tuple[str, ...]
    normalize: str
    scale: str
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
    def from_cfg(cls, cfg: CfgNode) -> "TernarySettings":
        """Read and check a full config; one without the node has the node's defaults."""
        if "TERNARY" not in cfg:
            cfg = cfg.clone()
            cfg.defrost()
            add_ternary_config(cfg)
        node = cfg.TERNARY
        known = {field.name.upper() for field in fields(cls)}
        unknown = sorted(set(node) - known)
        if unknown:
            raise InputError(
                f"TERNARY.{unknown[0]} is not a key; the keys are {', '.join(sorted(known))}"
            )
        values = {name.lower(): node[name] for name in known}
        values["skip"] = tuple(values["skip"])
        values["sparsity_overrides"] = tuple(map(_pair, values["sparsity_overrides"]))
        return cls(**values)

    def __post_init__(self):
        for name, allowed in _CHOICES.items():
            _require(name, getattr(self, name), getattr(self, name) in allowed, _either(allowed))
        _require("sparsity", self.sparsity, _is_sparsity(self.sparsity), "a number in [0, 1)")
        for pair in self.sparsity_overrides:
            _require("sparsity_overrides", pair, _is_sparsity(pair[1]), "sparsities in [0, 1)")
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
        _require("sigma", self.sigma, _is_number(self.sigma), "a number")
        _require(
            "freeze_start",
            self.freeze_start,
            self.freeze_start == 1 or QUANTIZER_REGISTRY.get(self.quantizer).freezes,
            f"1.0 with {self.quantizer}, which has no frozen stage",
        )
        _require(
            "threshold",
            self.threshold,
            self.threshold == "layer" or not self.sparsity_overrides,
            '"layer" where TERNARY.SPARSITY_OVERRIDES is set',
        )
        _require(
            "compensation",
            self.compensation,
            isinstance(self.compensation, int) and self.compensation >= 0,
            "a number of batches",
        )
        _require(
            "compensation",
            self.compensation,
            not self.compensates or (self.threshold == "layer" and self.prune_end == 0),
            "0 with a pruning stage (TERNARY.PRUNE_END above 0) or one threshold for the network",
        )
        for pattern in self.skip:
            _require("skip", pattern, isinstance(pattern, str), "name patterns")

    @property
    def compensates(self) -> bool:
        """Whether weights are made ready on training pictures; only some quantizers let them be."""
        return self.compensation > 0 and QUANTIZER_REGISTRY.get(self.quantizer).compensates

    def is_skipped(self, name: str) -> str | None:
        """The pattern of ``SKIP`` that matches a layer's full name, or None."""
        return next((p for p in self.skip if fnmatch.fnmatchcase(name, p)), None)

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
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _is_sparsity(value) -> bool:
    return _is_number(value) and 0 <= value < 1


def _either(allowed: tuple) -> str:
    return " or ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in allowed)


def _require(name: str, value, condition: bool, allowed: str) -> None:
    if not condition:
        raise InputError(f"TERNARY.{name.upper()} is {value!r}; allowed: {allowed}")
