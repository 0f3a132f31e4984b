"""Engines: what runs a packed model, by name."""

from abc import ABC, abstractmethod

from fvcore.common.registry import Registry

from .errors import InputError

__all__ = ["DEFAULT_ENGINE", "ENGINE_REGISTRY", "Engine", "engine_named"]

DEFAULT_ENGINE = "float"


class Engine(ABC):
    """Makes a model that runs of a packed one (:class:`ptq_det.packing.packed_model.PackedModel`).

    Attributes:
        name: what it is called in ``TERNARY.ENGINE`` and ``load_packed(engine=...)``.
    """

    name: str

    @abstractmethod
    def why_not(self, packed, device) -> str | None:
        """Why it cannot run a packed model on a device, as far as file and device tell, or None.

        Args:
            packed: the packed model.
            device: as PyTorch names it; None for the engine's own choice.
        """

    @abstractmethod
    def build(self, packed, device):
        """The model ready to predict: a module in evaluation mode, without gradients.

        Called where :meth:`why_not` had no reason; arguments as there.

        Raises:
            EngineError: a part of the model has no form in this engine.
        """

    def about(self) -> str:
        """A few words for the log: what it computes with here."""
        return ""


class _EngineRegistry(Registry):
    """Engines by their attribute ``name``."""

    def register(self, obj: type[Engine] | None = None):
        """Register a class of engines; used as the decorator ``@ENGINE_REGISTRY.register()``.

        Raises:
            InputError: it has no attribute ``name``.
        """
        if obj is None:
            return self.register
        if not isinstance(getattr(obj, "name", None), str):
            raise InputError(f"the engine {obj.__name__} has no name; give it the attribute `name`")
        self._do_register(obj.name, obj)
        return obj


ENGINE_REGISTRY = _EngineRegistry("ENGINE")


def engine_named(name: str) -> Engine:
    """The engine of a name.

    Raises:
        InputError: there is none; the message has those there are.
    """
    if name not in ENGINE_REGISTRY:
        known = ", ".join(name for name, _ in ENGINE_REGISTRY)
        raise InputError(f"the engine {name!r} is not known; there are {known}")
    return ENGINE_REGISTRY.get(name)()
