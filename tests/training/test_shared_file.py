import os

from detectron2.engine import launch
from detectron2.utils import comm

from ptq_det.training.processes import leave_process_group
from ptq_det.training.shared_file import from_main_process


def test_one_process_reads_its_own_file(tmp_path):
    with from_main_process(str(tmp_path / "a")) as path:
        assert path == str(tmp_path / "a")


def _read(folder):
    """Each process has a disk of its own; only the first one's has the file."""
    path = os.path.join(folder, str(comm.get_rank()), "m.safetensors")
    os.makedirs(os.path.dirname(path))
    if comm.is_main_process():
        with open(path, "wb") as file:
            file.write(b"packed")
    with from_main_process(path) as here, open(here, "rb") as file:
        held = file.read()
    with open(os.path.join(folder, f"{comm.get_rank()}.txt"), "w") as file:
        file.write(f"{held!r} {here == path} {os.path.exists(here)}")
    leave_process_group()


def test_processes_without_a_shared_disk_get_the_first_one_s_bytes(tmp_path):
    launch(_read, 2, dist_url="auto", args=(str(tmp_path),))
    assert (tmp_path / "0.txt").read_text() == "b'packed' True True"
    assert (tmp_path / "1.txt").read_text() == "b'packed' False False"
