"""Classification networks of torchvision, made ternary and packed like detectors."""

import torchvision
from detectron2.config import CfgNode, get_cfg
from torch import nn

from ..config import MERGE_ERRORS, add_ternary_config
from ..errors import InputError
from ..packing.architecture import Architecture
from ..training.foreign import read_weights

__all__ = ["NETWORKS", "build_classifier", "classifier_config"]

# The first convolution, which sees three channels of pixels and stays in float.
NETWORKS = {"resnet18": "conv1", "resnet50": "conv1", "mobilenet_v2": "features.0.0"}
_CLASSIFIERS = {"resnet18": "fc", "resnet50": "fc", "mobilenet_v2": "classifier.1"}


def classifier_config(name: str, overrides: list[str] | None = None) -> CfgNode:
    """A config for a network of ``NETWORKS``, of which ``TERNARY`` alone matters.

    Raises:
        InputError: an override is wrong.
    """
    cfg = get_cfg()
    add_ternary_config(cfg)
    cfg.TERNARY.ENABLED = True
    cfg.TERNARY.SKIP = [NETWORKS[name]]
    try:
        cfg.merge_from_list(overrides or [])
    except MERGE_ERRORS as error:
        raise InputError(f"an override: {error}") from error
    return cfg


def build_classifier(name: str, weights: str = "") -> tuple[nn.Module, Architecture]:
    """A torchvision network, and its architecture as a packed file has it.

    Args:
        name: one of ``NETWORKS``.
        weights: state dict in a ``.safetensors`` or a PyTorch file; without it weights are random.

    Raises:
        InputError: the weights are not those of this network.
    """
    state = read_weights(weights) if weights else {}
    last = state.get(f"{_CLASSIFIERS[name]}.weight")
    classes = 1000 if last is None else len(last)
    model = torchvision.models.get_model(name, weights=None, num_classes=classes)
    if weights:
        try:
            model.load_state_dict(state)
        except (RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"{weights} does not hold the weights of {name}: {reason}") from error
    return model.eval(), Architecture("torchvision", name, classes)
