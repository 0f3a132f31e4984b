import argparse

import pytest
from torch.multiprocessing import ProcessExitedException

from ptq_det.commands import launching
from ptq_det.commands.launching import in_processes, told_once
from ptq_det.errors import InputError

ALONE = argparse.Namespace(num_gpus=1, num_machines=1, machine_rank=0, dist_url="auto")


def test_a_mistake_is_a_line_and_status_2(capsys):
    with pytest.raises(SystemExit) as end, told_once():
        raise InputError("name another folder")
    assert end.value.code == 2
    assert capsys.readouterr().err == "\nerror: name another folder\n"


def test_our_own_mistakes_keep_their_traceback():
    with pytest.raises(KeyError, match="lost"), told_once():
        raise KeyError("lost")


def test_a_process_gets_the_arguments_and_a_worker_s_end_is_the_tool_s(monkeypatch):
    given = []
    in_processes(lambda *arguments: given.append(arguments), ALONE, "config", 3)
    assert given == [("config", 3)]

    def ended(*args, **options):
        raise ProcessExitedException("", error_index=0, error_pid=1, exit_code=2)

    monkeypatch.setattr(launching, "launch", ended)
    with pytest.raises(SystemExit) as end:
        in_processes(print, ALONE)
    assert end.value.code == 2
