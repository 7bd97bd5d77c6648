"""One bad input, what must come of it, and what came of it."""

import os
import pickle
import runpy
import signal
import sys
import sysconfig
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forks
from mmengine.logging import MMLogger

from florence_mm.errors import UsageError, user_sentence

ROOT = Path(__file__).resolve().parents[2]
_NOTHING = object()


@dataclass(frozen=True)
class BadInput:
    """An input, and either what the sentence of its refusal says or the value that it gives.

    Attributes:
        words: the input in words, unique in its area.
        run: gets an empty folder, in a fork, and raises or returns.
        says: texts that the sentence must contain: the key, file or value at fault.
        gives: the value that ``run`` must return.
        seconds: after this time the input hangs.
    """

    words: str
    run: Callable[[Path], Any]
    says: str | tuple[str, ...] = ()
    gives: Any = _NOTHING
    seconds: float = 60

    def __post_init__(self) -> None:
        if bool(self.says) == (self.gives is not _NOTHING):
            raise ValueError(f'{self.words}: give either what the refusal says or the value')


@dataclass(frozen=True)
class Outcome:
    """What came of an input.

    Attributes:
        kind: ``'refused'`` with one sentence and ``'right'`` are as they should be; the others are faults: ``'trace'``,
            ``'hang'``, ``'died'``, ``'accepted'`` where it should be refused, ``'wrong sentence'``, ``'wrong value'``.
        text: the sentence, the value or the end of the stack trace.
    """

    kind: str
    text: str

    @property
    def fault(self) -> bool:
        return self.kind not in ('refused', 'right')


@dataclass(frozen=True)
class Finished:
    """A command that ended without refusing its input."""

    status: int
    output: str
    errors: str


def call(function: Callable, *args: Any, **kwargs: Any) -> Callable[[Path], Any]:
    """Make a ``run`` that calls a function with these arguments and has no use for the folder."""
    return lambda folder: function(*args, **kwargs)


def outcomes(
    cases: Sequence[BadInput], folder: Path, done: Callable[[int], Any] = lambda number: None
) -> list[Outcome]:
    """Run inputs in forks of this process, as many at once as there are processors.

    Args:
        cases: the inputs.
        folder: an empty folder.
        done: is called with the number of inputs that have ended.
    """
    found: dict[int, Outcome] = {}
    waiting, running = list(range(len(cases)))[::-1], {}
    while len(found) < len(cases):
        while waiting and len(running) < (os.cpu_count() or 1):
            number = waiting.pop()
            running[number] = _start(cases[number], folder / str(number))
        for number, (child, deadline) in list(running.items()):
            ended = _ended(child, deadline, folder / f'{number}.outcome')
            if ended is not None:
                del running[number]
                found[number] = ended
                done(len(found))
        time.sleep(0.002)
    return [found[number] for number in range(len(cases))]


def _start(case: BadInput, folder: Path) -> tuple[int, float]:
    folder.mkdir()
    file = folder.parent / f'{folder.name}.outcome'
    child = forks.start(lambda: file.write_bytes(pickle.dumps(_in_fork(case, folder))))
    return child, time.monotonic() + case.seconds


def _ended(child: int, deadline: float, file: Path) -> Outcome | None:
    """What came of an input in a fork; None if it still runs."""
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid:
        return pickle.loads(file.read_bytes()) if file.exists() else Outcome('died', f'wait status {status}')
    if time.monotonic() < deadline:
        return None
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return Outcome('hang', 'no end within the time limit')


def _in_fork(case: BadInput, folder: Path) -> Outcome:
    os.chdir(folder)
    try:
        with _quiet(folder.parent):
            value = case.run(folder)
    except Exception as error:
        sentence = user_sentence(error)
        if sentence is None:
            return Outcome('trace', ''.join(traceback.format_exception(error))[-1500:])
        wanted = (case.says,) if isinstance(case.says, str) else case.says
        right = wanted and all(text in sentence for text in wanted) and 'Traceback' not in sentence
        return Outcome('refused' if right else 'wrong sentence', _without_places(sentence, folder))
    if case.gives is _NOTHING:
        return Outcome('accepted', repr(value))
    return Outcome('right' if value == case.gives else 'wrong value', _without_places(repr(value), folder))


def _without_places(text: str, folder: Path) -> str:
    """Replace the paths of this machine: the input's folder, the repository and the installed packages."""
    packages = sysconfig.get_paths()['purelib']
    for place, short in ((str(folder), '.'), (packages, 'site-packages'), (f'{ROOT}/', '')):
        text = text.replace(place, short)
    return text


@contextmanager
def _quiet(folder: Path) -> Iterator[None]:
    """Send what C libraries and loggers print to a file."""
    with tempfile.TemporaryFile('w', dir=folder) as sink:
        for stream in (1, 2):
            os.dup2(sink.fileno(), stream)
        yield


def command(tool: str, *args: object) -> Finished:
    """Run a tool of the repository in this process, with the current folder's files.

    Args:
        tool: its path from the repository's root.
        args: its arguments.

    Raises:
        UsageError: it ended with status 2 and one sentence on its last line.
        RuntimeError: it ended in another way than with status 0 or 1, or with a stack trace.
    """
    folder = Path(tempfile.mkdtemp())
    files = [folder / name for name in ('output', 'errors')]
    held = [os.dup(stream) for stream in (1, 2)]
    status = 0
    sys.stdout.flush(), sys.stderr.flush()
    for stream, file in zip((1, 2), files, strict=True):
        with file.open('w') as opened:
            os.dup2(opened.fileno(), stream)
    # pytest's streams do not go to the descriptors
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (open(stream, 'w', closefd=False) for stream in (1, 2))  # noqa: SIM115
    MMLogger._instance_dict.clear()  # loggers of earlier tests write to streams that are closed
    arguments, sys.argv = sys.argv, [str(ROOT / tool), *map(str, args)]
    try:
        runpy.run_path(str(ROOT / tool), run_name='__main__')
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        status = -1
        traceback.print_exc()
    finally:
        sys.argv = arguments
        sys.stdout.flush(), sys.stderr.flush()
        sys.stdout, sys.stderr = streams
        for stream, copy in zip((1, 2), held, strict=True):
            os.dup2(copy, stream)
            os.close(copy)
    output, errors = (file.read_text(errors='replace') for file in files)
    last = errors.strip().rpartition('\n')[2]
    if status not in (0, 1) and 'error: ' in last and 'Traceback' not in errors:
        raise UsageError(last.partition('error: ')[2])
    if status not in (0, 1) or 'Traceback' in errors:
        raise RuntimeError(f'{tool} ended with status {status}: {errors[-1200:]}')
    return Finished(status, output, errors)
