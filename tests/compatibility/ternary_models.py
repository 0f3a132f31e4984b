"""A plugin of pytest: the models that Detectron2's own tests build are made ternary.

Run from a folder with Detectron2's ``tests`` (docs/compatibility.md has the commands).
"""

import detectron2.utils.testing
from detectron2 import model_zoo
from detectron2.config import CfgNode, instantiate
from detectron2.modeling import build_model

from ptq_det import add_ternary_config, ternarize
from ptq_det.settings import TernarySettings
from ptq_det.ternary.ternarize import ternary_layers


def get_model_no_weights(config_path: str):
    """As Detectron2's of this name, and ternary."""
    cfg = model_zoo.get_config(config_path)
    if isinstance(cfg, CfgNode):
        add_ternary_config(cfg)
        cfg.MODEL.DEVICE = "cpu"
        cfg.TERNARY.ENABLED = True
        cfg.TERNARY.SPARSITY_OVERRIDES = []
        model = build_model(cfg)
    else:
        model = instantiate(cfg.model)
        ternarize(model, TernarySettings.make(sparsity_overrides=[]))
    assert ternary_layers(model)
    return model


detectron2.utils.testing.get_model_no_weights = get_model_no_weights
