"""Trainings in one process or several, and how they end where a user made a mistake."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from detectron2.engine import launch
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from ..errors import InputError
from ..training.processes import leave_process_group

__all__ = ["in_processes", "told_once"]


def in_processes(run: Callable, args: argparse.Namespace, *arguments) -> None:
    """``run(*arguments)`` in as many processes as the options of Detectron2's tools say."""
    try:
        launch(
            run,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=arguments,
        )
    except ProcessExitedException as error:  # a worker has said why
        sys.exit(error.exit_code)


@contextmanager
def told_once() -> Iterator[None]:
    """Around what a process does: a user's mistake ends it with a line, status 2, and said by one
    process for all; else it leaves the others behind."""
    try:
        yield
    except InputError as error:
        if not comm.is_main_process():
            time.sleep(60)  # the first process says it for all, and ends them
        print(f"\nerror: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    leave_process_group()
