"""A file that one process wrote, for all: machines that train together need not share a disk."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.utils import comm

__all__ = ["from_main_process"]


@contextmanager
def from_main_process(path: str) -> Iterator[str]:
    """The path of a file with the bytes that the first process has at ``path``.

    That path itself in the first process, a temporary file in the others.
    """
    if comm.get_world_size() == 1:
        yield path
        return
    box = [None]
    if comm.is_main_process():
        with open(path, "rb") as file:
            box = [file.read()]
    torch.distributed.broadcast_object_list(box, src=0)
    if comm.is_main_process():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        own = os.path.join(folder, os.path.basename(path))
        with open(own, "wb") as file:
            file.write(box[0])
        yield own
