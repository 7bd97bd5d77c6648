"""Errors that a user can fix, and how commands print them."""

import errno
import linecache
import os
import re
import reprlib
import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

_PACKAGE = str(Path(__file__).resolve().parent)
_DELIBERATE = (ValueError, TypeError, KeyError, OSError, RuntimeError, ImportError)
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
_WORKER = re.compile(r'^Caught (\w+) in DataLoader worker process')
_LOST_WORKER = re.compile(
    r'^DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: (.+?)\.|exited unexp)'
)
_ALLOCATION = re.compile(r'tr(?:ied|ying) to allocate ([\d.]+ ?\w+)')
#: Errors of the operating system when a disk, a quota or the allowed size of a file is full.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UsageError(Exception):
    """A mistake in a config, file or command line, told in one sentence: where, what was expected, what to do."""


class DataError(ValueError):
    """An unusable row, image or video; the message is one sentence that names the file and line."""


class Stopped(KeyboardInterrupt):
    """A signal that asks the process to end.

    Args:
        sentence: what was stopped, and how to go on.
        number: the signal.
    """

    def __init__(self, sentence: str, number: int) -> None:
        super().__init__(sentence)
        self.signal = signal.Signals(number)


def shown(value: object) -> str:
    """Write a value for a message: as ``repr`` does, but at most about a hundred characters, on one line.

    >>> shown('a' * 1000) == "'" + 'a' * 47 + '...' + 'a' * 48 + "'"
    True
    """
    return ' '.join(_SHORT.repr(value).split())


def shown_path(path: str | os.PathLike) -> str:
    r"""Write a path for a message: what cannot be printed, such as bytes of another encoding or a line end, as escapes.

    >>> shown_path('caf\udce9/new\nline/é')
    'caf\\xe9/new\\nline/é'
    """
    text = os.fspath(path)
    return text if text.isprintable() else ''.join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    # Python has the byte 0xE9 of a name that is not UTF-8 as U+DCE9
    return f'\\x{ord(char) - 0xDC00:02x}' if '\udc80' <= char <= '\udcff' else ascii(char)[1:-1]


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """End the process with exit status 2 and one sentence if the error is one that the user can fix.

    These are :class:`UsageError`, every error that florence_mm raises on purpose (also inside another package's builder
    or a data loader's worker), errors of the operating system about a file, and exhausted memory. Ctrl-C and SIGTERM
    end it with one sentence and the status of the signal, 130 or 143. All other errors keep their stack trace, and so
    do these with ``FLORENCE_MM_TRACEBACK=1`` in the environment.

    If the reader of the printed text has gone, as ``head`` has after its lines, the process ends with status 0.
    """
    asked: list[int] = []
    try:
        with _signals_raise(asked):
            yield
            raise_if_asked()
            sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and not _is_read(sys.stdout):
            raise SystemExit(0) from None
        # a worker that the same signal has ended may be noticed before the signal
        if asked and not isinstance(error, Stopped):
            error = Stopped('stopped', asked[0])
        if isinstance(error, KeyboardInterrupt):
            number = getattr(error, 'signal', signal.SIGINT)
            print(f'error: {signal.Signals(number).name}: {error or "stopped"}', file=sys.stderr, flush=True)
            raise SystemExit(128 + number) from None
        sentence = None if os.environ.get('FLORENCE_MM_TRACEBACK') == '1' else user_sentence(error)
        if sentence is None:
            raise
        print(f'error: {sentence}', file=sys.stderr, flush=True)
        raise SystemExit(2) from None


def _is_read(stream: TextIO) -> bool:
    """Whether somebody reads a stream; if not, what is written to it from now on is dropped."""
    watch = select.poll()
    watch.register(stream.fileno(), select.POLLOUT)
    if all(not event & select.POLLERR for _, event in watch.poll(0)):
        return True
    # otherwise Python would fail again when it closes the stream
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return False


def user_sentence(error: BaseException) -> str | None:
    """The sentence to print for ``error``; None if it is a bug, which needs a stack trace."""
    chain: BaseException | None = error
    # mmengine's builders raise a copy of the error whose text starts with the class being built
    while isinstance(chain, Exception):
        sentence = _own_sentence(chain)
        if sentence is not None:
            return sentence
        chain = chain.__cause__ or chain.__context__
    return None


def _own_sentence(error: Exception) -> str | None:
    text = _text(error)
    from_worker = _WORKER.match(text)
    if from_worker and isinstance(error, (UsageError, *_DELIBERATE)):
        return _worker_sentence(text, from_worker[1])
    if isinstance(error, UsageError):
        return text
    told = _memory_sentence(error, text) or _lost_worker_sentence(error, text)
    if told is not None:
        return told
    if not isinstance(error, _DELIBERATE):
        return None
    if isinstance(error, OSError) and error.filename and error.strerror:  # the system's: it names the file
        return f'{error.filename}: {error.strerror}; check the path, its rights and the disk'
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return f'a file cannot be written: {error.strerror}; make room on the disk and start again'
    frames = traceback.extract_tb(error.__traceback__)
    if frames and _raised_by_us(frames[-1].filename, frames[-1].lineno or 0):
        return text
    return None


def _memory_sentence(error: Exception, text: str) -> str | None:
    """Memory of the machine or of a GPU: torch's allocators, numpy's and Python's."""
    # torch has a class for GPUs alone
    from_torch = isinstance(error, RuntimeError) and ('DefaultCPUAllocator' in text or 'out of memory' in text.lower())
    if not from_torch and not isinstance(error, MemoryError):
        return None
    size = _ALLOCATION.search(text)
    wanted = f' ({size[1]} were asked for at once)' if size else ''
    return f'memory is exhausted{wanted}; use a smaller batch, image or model, or fewer num_workers'


def _lost_worker_sentence(error: Exception, text: str) -> str | None:
    lost = _LOST_WORKER.match(text) if isinstance(error, RuntimeError) else None
    if lost is None:
        return None
    how = f'was killed ({lost[2]})' if lost[2] else 'ended'
    return (
        f'the data-loading worker with process id {lost[1]} {how}, as the system does when memory is exhausted; use '
        'fewer num_workers or smaller samples, and go on with --resume'
    )


def raise_if_asked() -> None:
    """Raise :class:`Stopped` if SIGINT or SIGTERM has come and its exception was lost.

    Python drops exceptions inside destructors and callbacks of forks, so long work asks now and then.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if isinstance(handler, _RaisingHandler) and handler.asked:
        raise Stopped('stopped', handler.asked[0])


class _RaisingHandler:
    """Handler that raises :class:`Stopped` in the process that made it, and notes the signal in ``asked``."""

    def __init__(self, asked: list[int]) -> None:
        self.asked, self.owner = asked, os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self.owner:
            self.asked.append(number)
            raise Stopped('stopped', number)
        if number == signal.SIGTERM:  # a forked worker; on Ctrl-C its parent ends it
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


@contextmanager
def _signals_raise(asked: list[int]) -> Iterator[None]:
    """Let SIGINT and SIGTERM raise :class:`Stopped` inside the block, so that temporary files are deleted."""
    if threading.current_thread() is not threading.main_thread():  # others cannot set handlers
        yield
        return
    handler = _RaisingHandler(asked)
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    _drop_errors_of_ending_workers()
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _drop_errors_of_ending_workers() -> None:
    """Print no stack traces of destructors that a signal interrupts, nor of torch's data loaders on the way down."""
    before = sys.unraisablehook
    if getattr(before, 'drops_errors_of_workers', False):
        return

    def hook(lost: Any) -> None:
        of_workers = getattr(lost.object, '__qualname__', '').startswith('_MultiProcessingDataLoaderIter.')
        noticed_later = bool(_LOST_WORKER.match(str(lost.exc_value)))
        if not (of_workers or noticed_later or issubclass(lost.exc_type, KeyboardInterrupt)):
            before(lost)

    hook.drops_errors_of_workers = True
    sys.unraisablehook = hook


def _text(error: BaseException) -> str:
    # str() of a KeyError is the repr of its message
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _raised_by_us(filename: str, line: int) -> bool:
    """Whether that line of the package is a ``raise`` statement, so that the message is a sentence of ours."""
    return filename.startswith(_PACKAGE + os.sep) and linecache.getline(filename, line).strip().startswith('raise ')


def _worker_sentence(text: str, kind: str) -> str | None:
    """The last error of the stack trace that a worker sent as text; None if the package did not raise it on purpose."""
    frames = re.findall(r'^\s*File "(.+)", line (\d+), in ', text, flags=re.MULTILINE)
    # a stack trace names classes outside builtins with their module
    starts = list(re.finditer(rf'^(?:[\w.]+\.)?{kind}: ', text, flags=re.MULTILINE))
    if not frames or not starts or not _raised_by_us(frames[-1][0], int(frames[-1][1])):
        return None
    sentence = text[starts[-1].end() :].strip()
    return sentence.strip('\'"') if kind == 'KeyError' else sentence
