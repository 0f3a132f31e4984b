"""Engine ``float``: PyTorch's own layers with the weights that the codes stand for."""

from ..engines import DEFAULT_ENGINE, ENGINE_REGISTRY, Engine

__all__ = ["FloatEngine"]


@ENGINE_REGISTRY.register()
class FloatEngine(Engine):
    """Runs every packed model, on any device of PyTorch's."""

    name = DEFAULT_ENGINE

    def why_not(self, packed, device):
        return None

    def build(self, packed, device):
        return packed.build(device)
