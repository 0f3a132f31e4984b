"""Options of the quantizers: the arguments of their constructors, and nowhere else.

An argument ``bits: Literal[2, 4] = 4`` is the key ``TERNARY.BITS`` with that default; its
annotation is what is allowed: ``Literal`` values, or a number (``float``, ``int``), ``bool`` or
``str``. Quantizers that share an option share its default and annotation.
"""

import inspect
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..errors import InputError
from .base import QUANTIZER_REGISTRY

__all__ = ["Option", "all_options", "options_of"]

_TYPES = {float: (int, float), int: (int,), bool: (bool,), str: (str,)}
_WORDS = {float: "a number", int: "a whole number", bool: "True or False", str: "a text"}


@dataclass(frozen=True)
class Option:
    """An argument of a quantizer's constructor.

    Attributes:
        default: its value where the config has none.
        kind: its annotation.
    """

    default: Any
    kind: Any

    def allows(self, value) -> bool:
        """Whether a value may be given for it."""
        if get_origin(self.kind) is Literal:
            return any(type(value) is type(each) and value == each for each in get_args(self.kind))
        if isinstance(value, bool) and self.kind is not bool:
            return False
        return isinstance(value, _TYPES[self.kind]) and value == value

    def choices(self) -> tuple:
        """All values there are, or the default alone of an option that is no choice among few."""
        if self.kind is bool:
            return (False, True)
        return get_args(self.kind) if get_origin(self.kind) is Literal else (self.default,)

    def allowed(self) -> str:
        """What may be given for it, in words."""
        if get_origin(self.kind) is not Literal:
            return _WORDS[self.kind]
        values = get_args(self.kind)
        return " or ".join(f'"{v}"' if isinstance(v, str) else str(v) for v in values)


def options_of(quantizer: type) -> dict[str, Option]:
    """The options of a quantizer's class by the names of the arguments, which are in lower case.

    Raises:
        InputError: an argument has no default, or an annotation or a name of another kind.
    """
    if quantizer.__init__ is object.__init__:
        return {}
    arguments = list(inspect.signature(quantizer.__init__).parameters.items())[1:]
    kinds = get_type_hints(quantizer.__init__)
    options = {}
    for name, argument in arguments:
        kind = kinds.get(name)
        known = kind in _TYPES or get_origin(kind) is Literal
        if argument.default is argument.empty or not known or name != name.lower():
            raise InputError(
                f"{quantizer.__name__}.__init__ has {name!r}; an option is an argument in lower "
                "case with a default, annotated as Literal[...], float, int, bool or str"
            )
        options[name] = Option(argument.default, kind)
    return options


def all_options() -> dict[str, Option]:
    """The options of all registered quantizers.

    Raises:
        InputError: two quantizers disagree about an option.
    """
    found: dict[str, Option] = {}
    for quantizer, kind in QUANTIZER_REGISTRY:
        for name, option in options_of(kind).items():
            if found.setdefault(name, option) != option:
                raise InputError(
                    f"the quantizer {quantizer!r} has the option {name!r} with another default or "
                    "annotation than a quantizer registered before; give it a name of its own"
                )
    return found
