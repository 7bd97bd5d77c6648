"""Files of an index of features: rows, a line for each, and how both are appended to.

``index.json`` says what the features are of; ``features.bin`` holds their rows, ``items.jsonl`` a line for each row:
what it stands for, or the number of an earlier row that no longer counts. Rows are written before their lines, and what
is cut off at the end of either is dropped, so that a kill loses nothing that was finished. An index that was compacted
has a ``generation`` in its head, and the number in the names of both files.

Not here: the features in memory and their search.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from florence_mm.errors import DataError, UsageError
from florence_mm.utils.files import replacing, write_atomic
from florence_mm.utils.json_files import read_json
from florence_mm.utils.locks import try_lock
from florence_mm.utils.numbers import is_whole

HEAD = 'index.json'
_NAMES = re.compile(r'features(-\d+)?\.bin|items(-\d+)?\.jsonl|\.(features|items|index|search)[-.\w]*\.tmp')


def rows_path(folder: Path, head: Mapping[str, Any]) -> Path:
    """File of the rows."""
    return folder / f'features{_number(head)}.bin'


def items_path(folder: Path, head: Mapping[str, Any]) -> Path:
    """File of the lines."""
    return folder / f'items{_number(head)}.jsonl'


def _number(head: Mapping[str, Any]) -> str:
    return f'-{head["generation"]}' if head.get('generation') else ''


def write_head(folder: Path, head: Mapping[str, Any]) -> None:
    """Write ``index.json``."""
    write_atomic(folder / HEAD, json.dumps(head, indent=1) + '\n')


def row_bytes(head: Mapping[str, Any]) -> int:
    """Size of a row."""
    return head['dims'] * np.dtype(head['dtype']).itemsize


def encode_items(items: Iterable[Mapping[str, Any]]) -> bytes:
    """Write the line of each item."""
    return ''.join(f'{json.dumps(dict(item))}\n' for item in items).encode()


def read_items(folder: Path, head: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[int], int]:
    """Read what rows stand for.

    Returns:
        the items, the numbers of rows that no longer count, and the number of bytes that were read.

    Raises:
        DataError: a line is damaged, there are fewer rows than items, or rows and no file of lines.
    """
    path, rows_file = items_path(folder, head), rows_path(folder, head)
    rows = rows_file.stat().st_size // row_bytes(head) if rows_file.is_file() else 0
    if rows and not path.is_file():  # both are made before a row is written
        raise DataError(f'{path} is missing, and {rows_file.name} beside it has {rows} rows; make the index again')
    data = path.read_bytes() if path.is_file() else b''
    data = data[: data.rfind(b'\n') + 1]
    items: list[dict[str, Any]] = []
    dead: list[int] = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            item = json.loads(line)
            if not isinstance(item, dict) or not (is_whole(item.get('drop')) or isinstance(item.get('file'), str)):
                raise ValueError('it is no item')
        except (ValueError, RecursionError) as error:
            raise DataError(f'{path}, line {number}, cannot be read ({error}); make the index again') from None
        if 'drop' not in item:
            items.append(item)
        elif not 0 <= item['drop'] < len(items):
            raise DataError(
                f'{path}, line {number}, drops row {item["drop"]}, which is not there; make the index again'
            )
        else:
            dead.append(item['drop'])
    rows = rows_file.stat().st_size // row_bytes(head) if rows_file.is_file() else 0  # with those of the last lines
    if len(items) > rows:
        raise DataError(
            f'{path} has {len(items)} items, and {rows_file.name} beside it only {rows} rows; make the index again'
        )
    return items, dead, len(data)


class IndexWriter:
    """The open files of an index, locked against other processes, see :meth:`append`.

    Args:
        folder (Path): the index.
        head (dict): content of its ``index.json`` as it was read.
        count (int): number of rows that were read.
        written (int): number of bytes of lines that were read.

    Raises:
        UsageError: another process writes to the index, or has written since it was read.
    """

    def __init__(self, folder: Path, head: Mapping[str, Any], count: int, written: int) -> None:
        self.folder, self.count, self.written = folder, count, written
        self._row_bytes = row_bytes(head)
        if not self._is_generation(head):  # whose files are gone, and would be made again
            raise _taken(folder)
        self._rows, self._lines = (_open(path(folder, head)) for path in (rows_path, items_path))
        if not try_lock(self._lines.fileno()) or not self._is_as_read(head):
            self.close()
            raise _taken(folder)
        self._cut()

    def _is_as_read(self, head: Mapping[str, Any]) -> bool:
        """Whether nobody has written since the index was read; asked once it is locked."""
        return self._is_generation(head) and self._lines.read().rfind(b'\n') + 1 == self.written

    def _is_generation(self, head: Mapping[str, Any]) -> bool:
        return read_json(self.folder / HEAD).get('generation') == head.get('generation')

    def append(self, rows: bytes, lines: bytes, count: int) -> None:
        """Append rows and then their lines, on disk before this returns; after an error neither is there.

        Args:
            rows: the rows' values.
            lines: the lines.
            count: number of rows.

        Raises:
            UsageError: the disk is full, or cannot be written to.
        """
        try:
            for file, end, data in (
                (self._rows, self.count * self._row_bytes, rows),
                (self._lines, self.written, lines),
            ):
                file.seek(end)
                view = memoryview(data)
                while view:  # a nearly full disk takes a part
                    view = view[file.write(view) :]
                os.fsync(file.fileno())
        except OSError as error:
            self._cut()
            raise UsageError(
                f'the index {self.folder} cannot be written ({error.strerror}); it keeps what was indexed before, so '
                'make room and give the same command again'
            ) from error
        self.count += count
        self.written += len(lines)

    def _cut(self) -> None:
        """Drop what is half written at the ends."""
        self._rows.truncate(self.count * self._row_bytes)
        self._lines.truncate(self.written)

    def close(self) -> None:
        """Close the files, which ends the lock."""
        self._rows.close()
        self._lines.close()


def replace_rows(
    folder: Path, head: Mapping[str, Any], parts: Iterable[np.ndarray], items: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Write rows and their lines into new files, and let ``index.json`` name them; the old ones are then removed.

    The head is replaced last and at once, so that after a kill the old index is there or the new one.

    Args:
        folder: the index, which this process has locked.
        head: content of ``index.json``.
        parts: the rows ``(n, D)``, in parts.
        items: what each row stands for.

    Returns:
        the new head.

    Raises:
        OSError: the disk is full; the index is as before.
    """
    new = {**head, 'generation': head.get('generation', 0) + 1}
    try:
        with replacing(rows_path(folder, new)) as temporary, temporary.open('wb') as file:
            for part in parts:
                file.write(np.ascontiguousarray(part, head['dtype']).tobytes())
        write_atomic(items_path(folder, new), encode_items(items))
        write_head(folder, new)
    except OSError:
        if read_json(folder / HEAD) != new:
            remove_files(folder, head)
        raise
    remove_files(folder, new)
    return new


def remove_files(folder: Path, head: Mapping[str, Any] | None = None) -> None:
    """Remove all files of rows and lines but those of a head, also what a kill has left."""
    kept = () if head is None else (rows_path(folder, head), items_path(folder, head))
    for path in folder.iterdir():
        if _NAMES.fullmatch(path.name) and path not in kept:
            with suppress(OSError):  # some systems keep files that another process has open
                path.unlink()


def _open(path: Path) -> BinaryIO:
    path.touch()
    # without a buffer, whose rest would be written again when a full disk has refused it
    return path.open('r+b', buffering=0)


def _taken(folder: Path) -> UsageError:
    return UsageError(
        f'another process writes to the index {folder}; wait until it has ended, and give the command again'
    )
