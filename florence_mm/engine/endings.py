"""How a training ends that does not reach its end: in words that say what stopped it and where it goes on."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from florence_mm.errors import FULL_DISK, Stopped, UsageError


@contextmanager
def ending_in_words(runner: Any) -> Iterator[None]:
    """Say where a run stands when a signal or a full disk stops it.

    Raises:
        Stopped: on SIGINT and SIGTERM.
        UsageError: the disk is full.
    """
    try:
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


def _goes_on(runner: Any) -> str:
    pointer = Path(runner.work_dir) / 'last_checkpoint'
    try:
        return f'--resume goes on from {pointer.read_text().strip()}'
    except (OSError, ValueError):
        return 'there is no checkpoint yet to go on from'
