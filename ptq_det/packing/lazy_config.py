"""The config of a model that no YAML describes: what of a lazy config travels in a file, as data.

Nothing that a file names here is ever imported: whoever reads the file gives the model.
"""

import dataclasses
import functools
import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from detectron2.utils.registry import _convert_target_to_string
from omegaconf import DictConfig, OmegaConf, SCMode
from omegaconf.errors import OmegaConfBaseException

from ..errors import InputError
from .container import PackedFileError
from .model_config import has_text, is_harmless, is_json, may_travel, parse_config

__all__ = ["lazy_text", "read_lazy"]

_TARGET, _PARTIAL = "_target_", "_partial_"
_LEFT_OUT = (
    "The lazy config of the model is beyond what a packed file may have (%s), so the file has "
    "none. Who loads it gives the model all the same: load_packed(path, "
    "model=instantiate(cfg.model))."
)
_CALLED = re.compile(r"(?=.{1,200}$)[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


def lazy_text(node: DictConfig | None) -> str:
    """JSON of a model's node in a lazy config; ``{}`` without one, and for one that is beyond what
    a file may have, which is said.

    Raises:
        InputError: a value of the node cannot be resolved.
    """
    if node is None:
        return "{}"
    try:
        values = OmegaConf.to_container(
            node, resolve=True, structured_config_mode=SCMode.INSTANTIATE
        )
    except OmegaConfBaseException as error:
        raise InputError(
            f"the lazy config of the model cannot be resolved ({error}); give the whole config, in "
            "which the model's node stands"
        ) from error
    try:
        text = json.dumps(_plain(values), separators=(",", ":"), sort_keys=True)
        _parsed(text)
    except (ValueError, RecursionError) as error:
        logging.getLogger("ptq_det").warning(_LEFT_OUT, error)
        return "{}"
    return text


def read_lazy(text: str, path: str) -> dict:
    """The data that :func:`lazy_text` wrote.

    Raises:
        PackedFileError: it is too large, no JSON, or has a text that is more than a name.
    """
    try:
        return _parsed(text)
    except (ValueError, RecursionError) as error:
        raise PackedFileError(path, f"its config cannot be read ({error})") from error


def _parsed(text: str) -> dict:
    if not is_json(text):
        raise ValueError("no node at its top")
    stored = parse_config(text)
    _check(stored)
    return stored


def _plain(value: Any) -> Any:
    """A value as JSON has it: classes and functions by their names, other objects by their
    types'."""
    match value:
        case bool() | None:
            return value
        case int() | float():
            return value if is_harmless(value) else str(value)
        case str():
            return value if is_harmless(value) else None
        case Mapping():
            kept = {str(key): _plain(each) for key, each in value.items()}
            if _TARGET in kept:
                kept[_TARGET] = _name_of(value[_TARGET])
            if kept.pop(_PARTIAL, False) and _TARGET in kept:  # a call that waits for arguments
                kept[_PARTIAL] = kept.pop(_TARGET)
            return {k: x for k, x in kept.items() if is_harmless(k) and _may_travel(k, x)}
        case list() | tuple():
            return [_plain(each) for each in value]
        case functools.partial():
            return {_PARTIAL: _name_of(value.func), **_plain(value.keywords)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {x.name: getattr(value, x.name) for x in dataclasses.fields(value)}
        return {_TARGET: _name_of(type(value)), **_plain(fields)}
    name = _name_of(value) if callable(value) else type(value).__name__
    return name if is_harmless(name) else type(value).__name__


def _name_of(target: Any) -> str:
    """The full name of a class or function, or of its type where it has none; a name is kept."""
    try:
        name = target if isinstance(target, str) else _convert_target_to_string(target)
    except AttributeError:
        name = ""
    return name if _CALLED.fullmatch(name) else type(target).__name__


def _may_travel(key: str, value: Any) -> bool:
    """Numbers do whatever their key is called: a lazy config has ``drop_path_rate``."""
    return not has_text(value) or may_travel(key, value)


def _check(value: Any) -> None:
    """Raise ``ValueError`` where a name or text is more than a name."""
    if isinstance(value, dict):
        for key, each in value.items():
            if not is_harmless(key) or not _may_travel(key, each):
                raise ValueError(f"the key {key[:80]!r}")
            if key not in (_TARGET, _PARTIAL):
                _check(each)
            elif not isinstance(each, str) or not _CALLED.fullmatch(each):
                raise ValueError(f"the {key} {str(each)[:80]!r}")
    elif isinstance(value, list):
        for each in value:
            _check(each)
    elif not is_harmless(value):
        raise ValueError(f"the value {str(value)[:80]!r}")
