"""Errors that a user can cause."""

__all__ = ["EngineError", "InputError", "UntrainedLayersError"]


class InputError(ValueError):
    """A config, data set or weights file cannot be used; the message names the cure."""


class EngineError(InputError):
    """An engine cannot run a packed model; the message says why."""


class UntrainedLayersError(InputError):
    """Layers to be ternarized hold random weights.

    Args:
        names: the layers' names.
        weights: the value of ``MODEL.WEIGHTS``; None where there is no such key.
    """

    def __init__(self, names: list[str], weights: str | None):
        self.names = names
        source = "a checkpoint" if weights is None else f"MODEL.WEIGHTS {weights!r}"
        super().__init__(
            f"{len(names)} layers to be ternarized were not loaded from {source}:\n  "
            + "\n  ".join(names)
            + "\nTernarizing random weights gives a "
            "poor model. Give weights that hold these layers (a detector trained in float), "
            "name the layers in TERNARY.SKIP, or set TERNARY.REQUIRE_TRAINED False."
        )
