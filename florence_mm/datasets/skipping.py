"""Counting of skipped rows and images, up to a maximum."""

import logging
from collections.abc import Callable
from typing import Any

import torch
from mmengine.logging import print_log

from florence_mm.errors import DataError
from florence_mm.utils.limits import check_limit, limit_of


class SkipCounter:
    """Count the skipped rows of one data set, and raise beyond a maximum.

    Rows are flagged in shared memory, so that the workers of a data loader count together, and each row once; flags
    are only ever set, so no lock is needed. Processes of a distributed run count separately.

    Args:
        name (str): The data set in messages, its manifest's path for instance.
        max (int | float): The maximum: a number of rows, or below 1 a fraction of all rows.
        option (str): The option that sets the maximum, for messages.

    Raises:
        ValueError: ``max`` is negative, or a fraction above 1.
    """

    def __init__(self, name: str, max: int | float, option: str = 'skip_bad=dict(max=...)') -> None:
        check_limit(max, option.partition('=...')[0], 'rows')
        self.name = name
        self.max = max
        self.option = option.partition('=')[0]
        self.num_lines = 0
        self.flags = torch.zeros(0, dtype=torch.uint8)

    @property
    def num_images(self) -> int:
        """Number of different images skipped so far, in all workers."""
        return int(self.flags.sum())

    @property
    def total(self) -> int:
        """Number of rows skipped so far."""
        return self.num_lines + self.num_images

    def cap(self, num_rows: int) -> int:
        """Return the maximum as a number of rows out of ``num_rows``."""
        return limit_of(self.max, num_rows)

    def add_line(self, error: DataError) -> None:
        """Count a row that could not be read from the manifest."""
        self.num_lines += 1
        # a fraction is checked in `finish_lines`, when the number of rows is known
        if self.max >= 1 or self.max == 0:
            self._check(int(self.max), error)
        if self.num_lines <= 10:
            self._warn(f'skipped: {error}')

    def finish_lines(self, num_rows: int) -> None:
        """Check the maximum after reading ``num_rows`` rows, unusable ones included, and prepare to count images."""
        if self.num_lines:
            self._check(self.cap(num_rows), None)
            self._warn(f'skipped {self.num_lines} of {num_rows} rows of {self.name} (cap {self.cap(num_rows)})')
        self._cap = self.cap(num_rows)
        self.flags = torch.zeros(num_rows - self.num_lines, dtype=torch.uint8).share_memory_()

    def add_image(self, row: int, error: DataError) -> None:
        """Count row ``row``, whose image could not be read; a row already counted is ignored."""
        if self.flags[row]:
            return
        self.flags[row] = 1
        self._check(self._cap, error)
        self._warn(f'skipped: {error} ({self.total} rows skipped so far, cap {self._cap})')

    def next_usable(self, prepare: Callable[[int], Any], row: int, number: int) -> Any:
        """Return ``prepare(row)``, or that of the next of ``number`` rows that is usable; the others are counted.

        Raises:
            DataError: too many rows are unusable, or all of them.
        """
        for _ in range(number):
            try:
                return prepare(row)
            except DataError as error:
                self.add_image(row, error)
            row = (row + 1) % number
        raise DataError(f'{self.name} has no usable image or video')

    def _check(self, cap: int, error: DataError | None) -> None:
        if self.total > cap:
            last = f'; the last was: {error}' if error else ''
            raise DataError(
                f'{self.name}: {self.total} rows are unusable, more than the {cap} that {self.option} allows{last}'
            )

    @staticmethod
    def _warn(message: str) -> None:
        print_log(message, logger='current', level=logging.WARNING)
