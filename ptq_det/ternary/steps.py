"""How many steps optimizers have taken, which is how old what was derived from weights may be.

A version of a tensor does not tell: a fused step leaves none behind.
"""

from torch.optim.optimizer import register_optimizer_step_post_hook

__all__ = ["optimizer_steps"]

_taken = 0


def _note(optimizer, args, kwargs) -> None:
    global _taken
    _taken += 1


register_optimizer_step_post_hook(_note)


def optimizer_steps() -> int:
    """A number that grows with every step of any optimizer of PyTorch in this process."""
    return _taken
