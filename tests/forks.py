"""Forks of the test's process, which have everything imported: one, or several that form a process group."""

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence

import torch

LONGEST = 240  # seconds; who waits longer for the others is stuck


def start(work: Callable[[], object]) -> int:
    """Run ``work`` in a fork; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        torch.set_num_threads(1)  # a fork has none of its parent's threads
        work()
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    os._exit(status)


def wait(children: Sequence[int]) -> list[int]:
    """How each fork ended, as an exit status; once one has failed, the others, which may wait for it, are killed."""
    ended, deadline = {}, time.monotonic() + LONGEST
    while len(ended) < len(children):
        for child in set(children) - set(ended):
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                ended[child] = os.waitstatus_to_exitcode(status)
            elif any(ended.values()) or time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.005)
    return [ended[child] for child in children]


def as_ranks(work: Callable[[], object], world: int) -> None:
    """Run ``work`` in ``world`` forks with the environment that torchrun gives; all must end well."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])

    def as_rank(rank: int) -> None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world))
        os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
        work()

    assert wait([start(lambda rank=rank: as_rank(rank)) for rank in range(world)]) == [0] * world
