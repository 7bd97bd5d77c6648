"""A function run over many shards by processes of this machine, or as tasks of a Ray cluster."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import cv2

from florence_mm.errors import DataError, UsageError

ENGINES = ('pool', 'ray')
#: Errors that a user can mend; they end a run with their sentence, not with a stack trace from another process.
_SENTENCES = (UsageError, DataError, OSError, ImportError)

Task = Any
#: ``function(task, context)``; a function of a module, as it is sent to other processes.
Function = Callable[[Task, Any], Any]


def run_tasks(
    function: Function,
    tasks: Iterable[Task],
    workers: int,
    engine: str = 'pool',
    make_context: Callable[[], Any] | None = None,
) -> Iterator[Any]:
    """Yield ``function(task, context)`` of each task as it ends, in no fixed order.

    Each process works on one task at a time with one thread. If one dies, the others are ended and a sentence names
    its task.

    Args:
        function: see :data:`Function`.
        tasks: they and the results can be pickled; a task's ``str`` names it in messages.
        workers: processes, or tasks that Ray has in work.
        engine: ``'pool'``, or ``'ray'`` (``pip install florence_mm[cluster]``), which connects to a running cluster or
            else starts one here.
        make_context: called once in each process; what it returns, such as a model, is given to each task. It can be
            pickled.

    Raises:
        UsageError: a process died, there is no such engine, or Ray is not installed.
    """
    if engine not in ENGINES:
        raise UsageError(f'engine={engine!r} is none of {", ".join(ENGINES)}')
    work = pickle.dumps((function, make_context))
    return (_run_pool if engine == 'pool' else _run_ray)(work, tasks, workers)


@lru_cache(maxsize=1)
def _prepare(work: bytes) -> tuple[Function, Any]:
    cv2.setNumThreads(1)
    function, make_context = pickle.loads(work)
    return function, make_context() if make_context is not None else None


def _call(work: bytes, task: Task) -> tuple[bool, Any]:
    """Run one task; returns whether it succeeded, and the result or an error with a sentence."""
    try:
        function, context = _prepare(work)
        return True, function(task, context)
    except _SENTENCES as error:
        return False, error


class _Worker(NamedTuple):
    process: multiprocessing.process.BaseProcess
    connection: Connection


def _run_pool(work: bytes, tasks: Iterable[Task], workers: int) -> Iterator[Any]:
    # a fork of this process would inherit locks that its threads hold; the server's is small and has one thread
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([__name__, f'{__package__}.stage_a', 'pyarrow.parquet'])
    left = iter(tasks)
    busy: dict[_Worker, Task] = {}
    started: list[_Worker] = []
    try:
        for task in left:
            if len(started) < workers:
                worker = _start(context, work)
                started.append(worker)
            else:
                worker, result = _next_result(busy)
                yield result
            _give(worker, task)
            busy[worker] = task
        while busy:
            yield _next_result(busy)[1]
    finally:
        for worker in started:
            worker.connection.close()
            worker.process.kill()  # files are written under temporary names
        for worker in started:
            worker.process.join()


def _start(context: Any, work: bytes) -> _Worker:
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, work), daemon=True)
    process.start()
    there.close()
    return _Worker(process, here)


def _give(worker: _Worker, task: Task) -> None:
    try:
        worker.connection.send(task)
    except (BrokenPipeError, ConnectionResetError):
        worker.process.join()
        raise UsageError(_death(worker.process.exitcode, task)) from None


def _next_result(busy: dict[_Worker, Task]) -> tuple[_Worker, Any]:
    """Wait for one of the workers, and return it with its result."""
    by_connection = {worker.connection: worker for worker in busy}
    worker = by_connection[wait(by_connection)[0]]
    task = busy.pop(worker)
    try:
        succeeded, result = worker.connection.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        raise UsageError(_death(worker.process.exitcode, task)) from None
    if not succeeded:
        raise result
    return worker, result


def _death(code: int | None, task: Task) -> str:
    killed = code is not None and code < 0
    how = f'was ended by {signal.Signals(-code).name}' if killed else f'ended with status {code}'
    cause = ', as the system does when memory runs out' if code == -signal.SIGKILL else ''
    return (
        f'the process that worked on {task} {how}{cause}; run the command again, which continues where this one '
        'stopped, with fewer workers if it happens again'
    )


def _serve(connection: Connection, work: bytes) -> None:
    """Work in a process: take tasks until the one that gives them is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(_call(work, task))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _run_ray(work: bytes, tasks: Iterable[Task], workers: int) -> Iterator[Any]:
    try:
        import ray
    except ImportError:
        raise UsageError('engine="ray" needs Ray; install it with: pip install "florence_mm[cluster]"') from None
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    call = ray.remote(num_cpus=1, max_retries=0)(_call)
    shared = ray.put(work)
    busy: dict[Any, Task] = {}
    left = iter(tasks)
    try:
        while True:
            for task in left:
                busy[call.remote(shared, task)] = task
                if len(busy) >= workers:
                    break
            if not busy:
                return
            (ready, *_), _ = ray.wait(list(busy), num_returns=1)
            task = busy.pop(ready)
            try:
                succeeded, result = ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, Exception) else error from None
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[0]
                raise UsageError(
                    f'the Ray task that worked on {task} was lost ({reason}); run the command again, which continues'
                ) from None
            if not succeeded:
                raise result
            yield result
    finally:
        for reference in busy:
            ray.cancel(reference, force=True)
