"""Errors that a user can fix, and how commands print them."""

import linecache
import os
import re
import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

_PACKAGE = str(Path(__file__).resolve().parent)
_DELIBERATE = (ValueError, TypeError, KeyError, OSError, RuntimeError, ImportError)
_WORKER = re.compile(r'^Caught (\w+) in DataLoader worker process')


class UsageError(Exception):
    """A mistake in a config, file or command line, told in one sentence: where, what was expected, what to do."""


class DataError(ValueError):
    """An unusable row, image or video; the message is one sentence that names the file and line."""


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """End the process with exit status 2 and one sentence if the error is one that the user can fix.

    These are :class:`UsageError`, every error that florence_mm raises on purpose (also inside another package's builder
    or a data loader's worker), and errors of the operating system about a file. All other errors keep their stack
    trace, and so do these with ``FLORENCE_MM_TRACEBACK=1`` in the environment.

    If the reader of the printed text has gone, as ``head`` has after its lines, the process ends with status 0.
    """
    try:
        yield
        sys.stdout.flush()
    except Exception as error:
        if isinstance(error, BrokenPipeError) and not _is_read(sys.stdout):
            raise SystemExit(0) from None
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
    if not isinstance(error, _DELIBERATE):
        return None
    if isinstance(error, OSError) and error.filename and error.strerror:  # the system's: it names the file
        return f'{error.filename}: {error.strerror}; check the path, its rights and the disk'
    frames = traceback.extract_tb(error.__traceback__)
    if frames and _raised_by_us(frames[-1].filename, frames[-1].lineno or 0):
        return text
    return None


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
