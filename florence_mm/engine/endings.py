"""How a run ends that does not reach its end: in words that say what stopped it and where it goes on."""

import datetime
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import distributed

from florence_mm.errors import FULL_DISK, Stopped, UsageError

from .first_failure import first_failure

#: Seconds that a process waits for a batch of its data-loading workers: ``timeout`` of a data loader.
WAIT_FOR_WORKERS = 300
#: Seconds that processes wait for each other: ``env_cfg.dist_cfg.timeout``.
WAIT_FOR_RANKS = 1800
#: Seconds that a data-loading worker may be stopped (SIGSTOP) before it is ended.
STOPPED_LIMIT = 60

_WORKERS_LATE = re.compile(r'^DataLoader timed out after (\S+) seconds')
_WORKER_LOST = re.compile(r'^DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed|exited)')
_RANKS_LATE = re.compile(r'timed out|timeout', re.IGNORECASE)


@contextmanager
def ending_in_words(runner: Any) -> Iterator[None]:
    """Say where a run stands when a signal, a full disk, or a worker or process that does not answer ends it.

    Raises:
        Stopped: on SIGINT and SIGTERM.
        UsageError: the disk is full; a data-loading worker or another process has not answered in time; the first
            iteration, validation or test has failed.
    """
    try:
        with _no_stopped_workers() as stopped:
            yield
    except KeyboardInterrupt as stop:
        number = getattr(stop, 'signal', signal.SIGINT)
        raise Stopped(f'stopped in iteration {runner.iter + 1}; {_goes_on(runner)}', number) from None
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        place = error.filename or f'a file in {runner.work_dir}'
        raise UsageError(
            f'{place} cannot be written in iteration {runner.iter + 1}: {error.strerror}; make room, and '
            f'{_goes_on(runner)}'
        ) from error
    except RuntimeError as error:
        sentence = _workers_late(str(error), stopped) or _ranks_late(runner, error)
        told = UsageError(f'{sentence}; {_goes_on(runner)}') if sentence else first_failure(runner, error)
        if told is None:
            raise
        raise told from error
    except Exception as error:
        told = first_failure(runner, error)
        if told is None:
            raise
        raise told from error


def meeting_failed(error: Exception) -> UsageError:
    """The error of processes that have not found each other at the address of the first."""
    place = f'{os.environ.get("MASTER_ADDR")}:{os.environ.get("MASTER_PORT")}'
    return UsageError(
        f'the {os.environ.get("WORLD_SIZE")} processes of the run do not find each other at {place} '
        f'({str(error).splitlines()[0]}); take a free port and start all of them'
    )


def _goes_on(runner: Any) -> str:
    pointer = Path(runner.work_dir) / 'last_checkpoint'
    try:
        return f'--resume goes on from {pointer.read_text().strip()}'
    except (OSError, ValueError):
        return 'there is no checkpoint yet to go on from'


@contextmanager
def _no_stopped_workers() -> Iterator[set[int]]:
    """End child processes that stay stopped, which torch would wait for; yields the set of their process ids."""
    ended: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        since: dict[int, float] = {}
        while not done.wait(min(5, STOPPED_LIMIT / 2)):
            now, stopped = time.monotonic(), _stopped_children()
            since = {pid: since.get(pid, now) for pid in stopped}
            for pid, start in since.items():
                if now - start >= STOPPED_LIMIT:
                    ended.add(pid)
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch, name='stopped workers', daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        done.set()
        thread.join()
        for pid in _stopped_children():  # at exit Python waits for them
            os.kill(pid, signal.SIGKILL)


def _stopped_children() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid and _state(child.pid) == 'T']


def _state(pid: int) -> str:
    """State of a process in Linux's letters, T if it is stopped; elsewhere, or if it has ended, nothing."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except (OSError, IndexError):
        return ''


def _workers_late(text: str, stopped: set[int]) -> str | None:
    lost = _WORKER_LOST.match(text)
    if lost and stopped & {int(pid) for pid in lost[1].split(',')}:
        return f'the data-loading worker with process id {lost[1]} was stopped for {STOPPED_LIMIT} s'
    late = _WORKERS_LATE.match(text)
    if late:
        pids = ', '.join(str(child.pid) for child in multiprocessing.active_children())
        return (
            f'the data-loading workers (processes {pids}) gave no batch for {late[1]} s, the `timeout` of the data '
            'loader; look for a file or a transform that takes that long, or raise it'
        )
    return None


def _ranks_late(runner: Any, error: RuntimeError) -> str | None:
    if not (distributed.is_initialized() and runner.world_size > 1 and _RANKS_LATE.search(str(error))):
        return None
    missing = ', '.join(map(str, _ranks_that_do_not_wait(runner.rank, runner.world_size))) or 'unknown'
    limit = (runner.cfg.get('env_cfg') or {}).get('dist_cfg', {}).get('timeout', WAIT_FOR_RANKS)
    return (
        f'rank {missing} has not come to iteration {runner.iter + 1} within {limit} s '
        '(env_cfg.dist_cfg.timeout), and the others waited; look at what it does'
    )


def _ranks_that_do_not_wait(rank: int, world: int) -> list[int]:
    """Ranks that have not told of a wait in vain within a few seconds of this one's."""
    store = distributed.distributed_c10d._get_default_store()
    store.set_timeout(datetime.timedelta(seconds=10))
    try:
        store.set(f'florence_mm/waited/{rank}', '1')
        time.sleep(4)
        return [other for other in range(world) if not store.check([f'florence_mm/waited/{other}'])]
    except RuntimeError:  # the first rank, which has the store, does not answer
        return [0]
