"""Batch norms that several GPUs share."""

import logging

from detectron2.config import CfgNode
from detectron2.utils import comm

__all__ = ["with_shared_norms"]


def with_shared_norms(cfg: CfgNode) -> CfgNode:
    """The config with ``NORM "SyncBN"`` for each ``NORM "BN"`` where several processes train on
    GPUs: the pictures of one GPU are too few for statistics. Said in the log; the config itself
    elsewhere, and on CPUs, which have no SyncBN. It is not changed.
    """
    count = comm.get_world_size()
    if count == 1 or not cfg.MODEL.DEVICE.startswith("cuda"):
        return cfg
    shared = cfg.clone()
    shared.defrost()
    keys = list(_share(shared.MODEL, "MODEL"))
    if not keys:
        return cfg
    shared.freeze()
    logging.getLogger("ptq_det").info(
        "%d GPUs share the statistics of batch norms: SyncBN in place of BN in %s",
        count,
        ", ".join(keys),
    )
    return shared


def _share(node: CfgNode, name: str):
    """Set the keys of a node, and give their full names."""
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _share(value, f"{name}.{key}")
        elif key == "NORM" and value == "BN":
            node[key] = "SyncBN"
            yield f"{name}.{key}"
