"""Log lines that show the progress of long work and the time left."""

import logging
import time

from mmengine.logging import print_log


def format_seconds(seconds: float) -> str:
    """Format a duration: seconds, minutes and seconds, or hours and minutes.

    >>> format_seconds(75.2), format_seconds(7500)
    ('1 min 15 s', '2 h 5 min')
    """
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f'{seconds} s'
    if seconds < 3600:
        return f'{seconds // 60} min {seconds % 60} s'
    return f'{seconds // 3600} h {seconds % 3600 // 60} min'


class ProgressLog:
    """Log the progress of a loop and the estimated time left, at most once every ``interval`` seconds.

    A loop shorter than ``interval`` logs nothing. The estimate uses the pace since the first update, so that the time
    before the first iteration (loading data) does not count.

    Args:
        task (str): The work, as in "reading train.jsonl".
        total (float | None): The amount of work, in any unit (rows, bytes); None: unknown, as of a generator, and the
            pace is logged instead of the time left.
        interval (float): Seconds between log lines.

    Attributes:
        done (float): what the last update reported.
    """

    def __init__(self, task: str, total: float | None, interval: float = 5.0) -> None:
        self.task = task
        self.total = None if total is None else max(total, 1)
        self.interval = interval
        self._first: tuple[float, float] | None = None  # time and amount done at the first update
        self._last = 0.0
        self.done = 0.0

    def update(self, done: float) -> None:
        """Report that ``done`` of ``total`` is done; cheap enough for every iteration."""
        now, self.done = time.monotonic(), done
        if self._first is None:
            self._first, self._last = (now, done), now
        start, before = self._first
        if now - self._last < self.interval or done <= before:
            return
        self._last = now
        if self.total is None:
            pace = (done - before) / (now - start)
            print_log(f'{self.task}: {done:.0f} done, {pace:.3g} a second', logger='current', level=logging.INFO)
            return
        left = (now - start) / (done - before) * max(self.total - done, 0)
        percent = min(100 * done / self.total, 100)
        print_log(f'{self.task}: {percent:.0f} %, {format_seconds(left)} left', logger='current', level=logging.INFO)
