"""Packed models from what users have: ternary or float checkpoints, packed files."""

import logging

from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from torch import nn

from ..modeling.meta_arch import build_float_model
from ..ternary.norms import fold_norms
from ..ternary.ternarize import ternarize, ternary_layers
from .architecture import Architecture
from .container import is_packed
from .filled import load_filled
from .packed_model import PackedModel

__all__ = ["packed_from_checkpoint", "packed_from_model"]


def packed_from_checkpoint(cfg: CfgNode) -> tuple[PackedModel, bool]:
    """The packed form of ``MODEL.WEIGHTS``, and whether it was ternarized for that in one shot.

    Args:
        cfg: config of the model. Of a packed file, only ``MODEL.WEIGHTS`` is looked at.

    Raises:
        InputError: the weights, or a value of the config, cannot be used.
    """
    weights = cfg.MODEL.WEIGHTS
    if weights:
        local = PathManager.get_local_path(weights)
        if is_packed(local):
            return PackedModel.read(local), False
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    model = build_float_model(cfg)
    ternarize(model, cfg)
    load_filled(model, cfg)
    return packed_from_model(model, cfg)


def packed_from_model(
    model: nn.Module, cfg: CfgNode, architecture: Architecture | None = None
) -> tuple[PackedModel, bool]:
    """The packed form of a model, ternarized in one shot where it is not ternary yet."""
    ternarize(model, cfg)
    fold_norms(model.eval())
    layers = ternary_layers(model)
    latent = [
        name
        for name, layer in layers.items()
        if not layer.ternary.quantizer.is_quantized(layer.to_filters(layer.weight).float())
    ]
    if latent:
        logging.getLogger(__name__).info(
            "%d of %d layers hold latent weights (not fine-tuned, or not frozen yet), which are "
            "ternarized now",
            len(latent),
            len(layers),
        )
    if any(layers[name].sparsity is not None and not layers[name].is_chosen for name in latent):
        logging.getLogger(__name__).warning(
            "TERNARY.TARGET_MIB chooses zeros when a fine-tuning begins; without one the file has "
            "those of TERNARY.SPARSITY and SPARSITY_OVERRIDES, and the size that follows"
        )
    return PackedModel.of(model, cfg, architecture), bool(latent)
