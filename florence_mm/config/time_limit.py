"""Time limit for code that may never end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`TimeoutError` inside the ``with`` block after ``seconds``.

    It takes the process's alarm signal, so it has no effect outside the main thread, without such a signal, or while
    another alarm is set.
    """
    can = hasattr(signal, 'setitimer') and threading.current_thread() is threading.main_thread()
    if not can or signal.getitimer(signal.ITIMER_REAL)[0] > 0:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f'not done after {seconds:g} s')

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
