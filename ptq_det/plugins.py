"""Modules from outside: quantizers, builders and engines of one's own, projects of Detectron2."""

import os
import re
from importlib import import_module
from inspect import Parameter, signature
from types import ModuleType

from detectron2.config import CfgNode, get_cfg

from .errors import InputError

__all__ = ["base_config", "import_plugin", "import_plugins"]

_VARIABLE = "PTQ_DET_PLUGINS"  # modules with commas between them
_plugins: dict[str, ModuleType] = {}


def import_plugins() -> None:
    """Import the modules that ``PTQ_DET_PLUGINS`` in the environment names."""
    for name in _named():
        import_plugin(name)


def import_plugin(name: str) -> None:
    """Import a module, which registers what it has; its config keys join :func:`base_config`.

    Processes that this one starts import it too, by their environment.

    Raises:
        InputError: there is no such module, or it cannot be imported.
    """
    try:
        _plugins[name] = import_module(name)
    except ImportError as error:
        if (
            isinstance(error, ModuleNotFoundError)
            and error.name
            and f"{name}.".startswith(f"{error.name}.")
        ):
            raise InputError(
                f"there is no module {name!r} (named by --import or {_VARIABLE}) where Python "
                "looks; install it, or add the folder that it is in to PYTHONPATH"
            ) from error
        raise InputError(
            f"the module {name!r} (named by --import or {_VARIABLE}) cannot be imported: {error}"
        ) from error
    if name not in _named():
        os.environ[_VARIABLE] = ",".join([*_named(), name])


def _named() -> list[str]:
    return [name.strip() for name in os.getenv(_VARIABLE, "").split(",") if name.strip()]


def base_config() -> CfgNode:
    """Detectron2's defaults with the keys of all plugins: what their ``add_*_config(cfg)`` add."""
    cfg = get_cfg()
    for module in _plugins.values():
        for name, function in vars(module).items():
            if re.fullmatch(r"add_\w+_config", name) and _takes_a_config(function):
                function(cfg)
    return cfg


def _takes_a_config(function) -> bool:
    """Whether one argument must be given, and no others."""
    if not callable(function):
        return False
    kinds = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    arguments = signature(function).parameters.values()
    return len([p for p in arguments if p.default is p.empty and p.kind not in kinds]) == 1
