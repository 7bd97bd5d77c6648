"""Rows of features in a ``.npy`` file, written as they come.

Not here: where the features come from, and what their rows stand for.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from florence_mm.errors import UsageError
from florence_mm.utils.files import replacing


class FeatureRows:
    """Open ``.npy`` file that rows are appended to, see :func:`writing_rows`.

    Attributes:
        count (int): number of rows so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.count = 0
        self._file = file
        self._width: int | None = None

    def add(self, row: np.ndarray) -> int:
        """Append a row ``(D,)`` float32; returns its number.

        Raises:
            ValueError: its length is not that of the rows before.
        """
        if self._width is None:
            self._width = len(row)
            self._write_header()
        if len(row) != self._width:
            raise ValueError(f'a row has {len(row)} values, and the rows before have {self._width}')
        self._file.write(np.ascontiguousarray(row, '<f4').tobytes())
        self.count += 1
        return self.count - 1

    def finish(self) -> None:
        """Write the number of rows into the header."""
        if self._width is None:
            self._width = 0
        self._file.seek(0)
        self._write_header()

    def _write_header(self) -> None:
        # numpy leaves room in the header for a first axis of 21 digits
        header = {'descr': '<f4', 'fortran_order': False, 'shape': (self.count, self._width)}
        np.lib.format.write_array_header_1_0(self._file, header)


@contextmanager
def writing_rows(path: str | Path) -> Iterator[FeatureRows]:
    """Context manager for a ``.npy`` file of rows, which appears when the block ends without an error.

    Raises:
        UsageError: the name does not end in ``.npy``.
    """
    check_rows_path(path)
    with replacing(path) as temporary, temporary.open('w+b') as file:
        rows = FeatureRows(file)
        yield rows
        rows.finish()


def check_rows_path(path: Any) -> None:
    """Check that a path ends in ``.npy``.

    Raises:
        UsageError: it does not.
    """
    if not isinstance(path, (str, Path)) or Path(path).suffix.lower() != '.npy':
        raise UsageError(f'features go to {path}; name a file that ends in .npy')
