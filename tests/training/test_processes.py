import torch.distributed as dist
from detectron2.engine import launch
from detectron2.utils import comm

from ptq_det.training.processes import leave_process_group


def test_one_process_has_no_group_to_leave():
    leave_process_group()


def _leave(folder):
    rank = comm.get_rank()
    leave_process_group()
    with open(f"{folder}/{rank}.txt", "w") as file:
        file.write(f"{dist.is_initialized()} {comm.get_world_size()}")


def test_the_group_is_gone_before_the_process_ends(tmp_path):
    launch(_leave, 2, dist_url="auto", args=(str(tmp_path),))
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == ["False 1"] * 2
