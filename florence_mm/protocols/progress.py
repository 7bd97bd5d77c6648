"""Progress of a suite: which protocol runs, how far it is, and the time left over all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from florence_mm.utils.progress import format_seconds


class SuiteProgress:
    """Tell the progress of a suite in lines, at most one every ``interval`` seconds within a protocol.

    The time left is the rough time of all that is to do (:attr:`Entry.cost`) at the pace of what has been done.

    Args:
        costs: rough time by protocol, in any unit, of those that are to run.
        tell: function that shows a line.
        interval: seconds between two lines of one protocol.
        clock: function that returns the time in seconds.
    """

    def __init__(
        self,
        costs: Mapping[str, float],
        tell: Callable[[str], None],
        interval: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.costs = dict(costs)
        self.tell = tell
        self.interval = interval
        self.clock = clock
        self._number = 0
        self._name = ''
        self._done = 0.0  # cost of what has run
        self._spent = 0.0  # seconds of what has run
        self._start = self._last = 0.0

    def start(self, name: str) -> None:
        """Report that a protocol begins."""
        self._name, self._number = name, self._number + 1
        self._start = self._last = self.clock()
        self.tell(f'[{self._number}/{len(self.costs)}] {name}{self._left(0.0)}')

    def update(self, fraction: float) -> None:
        """Report that ``fraction`` of the running protocol, 0 to 1, is done; cheap enough for every batch."""
        now = self.clock()
        if now - self._last >= self.interval:
            self._last = now
            self.tell(f'[{self._number}/{len(self.costs)}] {self._name}: {fraction:.0%}{self._left(fraction)}')

    def end(self) -> float:
        """Report that the running protocol has ended; returns its seconds."""
        seconds = self.clock() - self._start
        self._spent += seconds
        self._done += self.costs.get(self._name, 0.0)
        return seconds

    def _left(self, fraction: float) -> str:
        done = self._done + fraction * self.costs.get(self._name, 0.0)
        if done <= 0:
            return ''
        running = self.clock() - self._start if fraction else 0.0
        left = (self._spent + running) / done * (sum(self.costs.values()) - done)
        return f', {format_seconds(left)} left over all'
