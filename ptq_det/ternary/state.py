"""What a ternary layer knows beside its parameters."""

from dataclasses import dataclass, field

from torch import nn

from ..quantizers import Quantizer
from .cache import ForwardWeightCache
from .network_threshold import NetworkThreshold
from .schedule import Stage
from .straight_through import Decay

__all__ = ["TernaryState"]


@dataclass
class TernaryState:
    """What a ternary layer knows; not saved.

    Attributes:
        stage: stage of the fine-tuning; None outside of one, where a weight that is ternary
            already is taken as it is and any other is ternarized.
        sparsity: target fraction of zeros.
        plain: class that the layer had before.
        ratio: fraction of the target that is asked for now (pruning stage).
        network: what gives the network's pruning threshold; None for the layer's own.
        loaded: whether a checkpoint has filled the weight since the layer became ternary.
        left: sparsity that was chosen for the size of a file, of a checkpoint whose training asked
            for one where this one does not; else None.
    """

    quantizer: Quantizer
    sparsity: float
    decay: Decay
    plain: type[nn.Module]
    stage: Stage | None = None
    ratio: float = 1.0
    network: NetworkThreshold | None = None
    loaded: bool = False
    left: float | None = None
    cache: ForwardWeightCache = field(default_factory=ForwardWeightCache)

    @property
    def shares_threshold(self) -> bool:
        """Whether its codes depend on the weights of other layers."""
        return self.network is not None and self.stage is not Stage.FROZEN
