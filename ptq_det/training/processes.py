"""The end of processes that trained together."""

import torch.distributed as dist
from detectron2.utils import comm

__all__ = ["leave_process_group"]


def leave_process_group() -> None:
    """Waits for the other processes and takes the group down; nothing without a group.

    Detectron2's ``launch`` leaves the group to the interpreter's exit, where a thread of the group
    that still runs aborts a process (SIGABRT) whose work is done.
    """
    if dist.is_available() and dist.is_initialized():
        comm.synchronize()
        dist.destroy_process_group()
