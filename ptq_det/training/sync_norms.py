"""Batch norms that several GPUs share."""

import logging
import re
from collections.abc import Iterator

from detectron2.config import CfgNode
from detectron2.utils import comm
from omegaconf import DictConfig, ListConfig

__all__ = ["with_shared_norms"]

_NORM = re.compile(r"(.*_)?norm", re.IGNORECASE)  # NORM; norm, conv_norm of a lazy config


def with_shared_norms(cfg: CfgNode | DictConfig) -> CfgNode | DictConfig:
    """The config with norms ``"SyncBN"`` for each ``"BN"`` of its model where several processes
    train on GPUs: the pictures of one GPU are too few for statistics. Said in the log; the config
    itself elsewhere, and on CPUs, which have no SyncBN. It is not changed.
    """
    count = comm.get_world_size()
    is_lazy = isinstance(cfg, DictConfig)
    device = str(cfg.train.device if is_lazy else cfg.MODEL.DEVICE)
    if count == 1 or not device.startswith("cuda"):
        return cfg
    shared = cfg.copy() if is_lazy else cfg.clone()
    if not is_lazy:
        shared.defrost()
    keys = list(_share(*((shared.model, "model") if is_lazy else (shared.MODEL, "MODEL"))))
    if not keys:
        return cfg
    if not is_lazy:
        shared.freeze()
    logging.getLogger("ptq_det").info(
        "%d GPUs share the statistics of batch norms: SyncBN in place of BN in %s",
        count,
        ", ".join(keys),
    )
    return shared


def _share(node: CfgNode | DictConfig | ListConfig, name: str) -> Iterator[str]:
    """Set the keys of a node, and give their full names."""
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        value = node[key]
        if isinstance(value, (CfgNode, DictConfig, ListConfig)):
            yield from _share(value, f"{name}.{key}")
        elif value == "BN" and _NORM.fullmatch(str(key)):
            node[key] = "SyncBN"
            yield f"{name}.{key}"
