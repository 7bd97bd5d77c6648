"""A folder of features that is appended to and searched.

``index.json`` says what the features are of; ``features.bin`` holds their rows, ``items.jsonl`` a line for each row:
what it stands for, or the number of an earlier row that no longer counts. Rows are written before their lines, and what
is cut off at the end of either is dropped, so that a kill loses nothing that was finished.

Not here: the model that the features are of.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from florence_mm.errors import DataError, UsageError
from florence_mm.utils.files import write_atomic
from florence_mm.utils.json_files import read_json
from florence_mm.utils.locks import try_lock
from florence_mm.utils.numbers import is_whole

from .approximate import EXACT_UP_TO, NeighbourGraph, is_available

VERSION = 1
DTYPES = ('float32', 'float16')
# a product of float32 is off by less than the first, one of float16 by less than the second
_SLACK = {'float32': 1e-5, 'float16': 4e-3}


class FeatureIndex:
    """Features ``(N, D)`` on disk with what each row stands for, see :meth:`create` and :meth:`open`.

    Attributes:
        folder (Path): the folder.
        head (dict): content of ``index.json``.
        items (list[dict]): what each row stands for.
        alive (np.ndarray): ``(N,)`` bool, False for rows that no longer count.
    """

    def __init__(self, folder: Path, head: dict[str, Any], items: list[dict[str, Any]], dead: list[int]) -> None:
        self.folder, self.head, self.items = folder, head, items
        self.alive = np.ones(len(items), bool)
        self.alive[dead] = False
        self._features: np.ndarray | None = None
        self._graph: tuple[int, NeighbourGraph | None] | None = None
        self._files: tuple[BinaryIO, BinaryIO] | None = None
        self._written = 0  # bytes of items.jsonl that were read or written

    @classmethod
    def create(
        cls, folder: str | Path, described: Mapping[str, Any], dims: int, dtype: str = 'float32'
    ) -> 'FeatureIndex':
        """Make an empty index.

        Args:
            folder: a new or empty folder.
            described: what the features are of, kept in ``index.json``.
            dims: D.
            dtype: ``'float32'``, or ``'float16'`` for half the size.

        Raises:
            UsageError: the folder has other files, or there is no such ``dtype``.
        """
        folder = Path(folder)
        if dtype not in DTYPES:
            raise UsageError(f'dtype is {dtype!r}; an index has {" or ".join(DTYPES)}')
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f'{folder} is no index and not empty; name a new folder for the index')
        folder.mkdir(parents=True, exist_ok=True)
        head = {'version': VERSION, 'dims': dims, 'dtype': dtype, **described}
        write_atomic(folder / 'index.json', json.dumps(head, indent=1) + '\n')
        return cls(folder, head, [], [])

    @classmethod
    def open(cls, folder: str | Path) -> 'FeatureIndex':
        """Read an index.

        Raises:
            UsageError: there is none, or it is of another version.
            DataError: a file is damaged or missing.
        """
        folder = Path(folder)
        if not (folder / 'index.json').is_file():
            raise UsageError(f'{folder} has no index.json; make an index first, or name the folder of one')
        head = read_json(folder / 'index.json')
        if head.get('version') != VERSION:
            raise UsageError(
                f'{folder} has an index of version {head.get("version")!r}, expected {VERSION}; make it again'
            )
        if head.get('dtype') not in DTYPES or not isinstance(head.get('dims'), int) or head['dims'] < 1:
            raise DataError(f'{folder / "index.json"} has no usable dims and dtype; make the index again')
        rows = _size(folder / 'features.bin') // _row_bytes(head)
        items, dead = _read_items(folder / 'items.jsonl', rows)
        index = cls(folder, head, items, dead)
        index._written = _whole_lines(folder / 'items.jsonl')
        return index

    def __len__(self) -> int:
        """Number of rows that count."""
        return int(self.alive.sum())

    @property
    def features(self) -> np.ndarray:
        """The rows ``(N, D)``, memory-mapped."""
        if self._features is None or len(self._features) != len(self.items):
            shape = len(self.items), self.head['dims']
            if not len(self.items):
                return np.empty(shape, self.head['dtype'])
            # writable in memory only, as torch asks for it; the file stays as it is
            self._features = np.memmap(self.folder / 'features.bin', self.head['dtype'], 'c', shape=shape)
        return self._features

    def append(self, features: np.ndarray, items: Sequence[Mapping[str, Any]], dropped: Sequence[int] = ()) -> None:
        """Append rows, on disk before this returns.

        Args:
            features: ``(n, D)``, L2-normalised.
            items: what each row stands for.
            dropped: numbers of earlier rows that no longer count.

        Raises:
            ValueError: the shape is another.
            UsageError: another process writes to the index, or has written since it was opened.
        """
        if features.shape != (len(items), self.head['dims']):
            raise ValueError(f'features have shape {features.shape}; expected {(len(items), self.head["dims"])}')
        rows, lines = self._opened()
        rows.write(np.ascontiguousarray(features, self.head['dtype']).tobytes())
        _flush(rows)
        texts = [json.dumps({'drop': int(number)}) for number in dropped] + [json.dumps(dict(item)) for item in items]
        lines.write(''.join(f'{text}\n' for text in texts).encode())
        _flush(lines)
        self._written = lines.tell()
        self.items += [dict(item) for item in items]
        self.alive[list(dropped)] = False
        self.alive = np.concatenate([self.alive, np.ones(len(items), bool)])

    def _opened(self) -> tuple[BinaryIO, BinaryIO]:
        """Files for appending, without what a kill has left half written."""
        if self._files is None:
            rows, lines = ((self.folder / name).open('ab') for name in ('features.bin', 'items.jsonl'))
            written = _whole_lines(self.folder / 'items.jsonl')
            if not try_lock(lines.fileno()) or written != self._written:
                rows.close(), lines.close()
                raise UsageError(
                    f'another process writes to the index {self.folder}; wait until it has ended, and give the command '
                    'again'
                )
            rows.truncate(len(self.items) * _row_bytes(self.head))
            lines.truncate(written)
            self._files = rows, lines
        return self._files

    def close(self) -> None:
        """Close the files."""
        for file in self._files or ():
            file.close()
        self._files = None

    def search(self, query: np.ndarray, top: int, exact: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows with the largest products.

        Args:
            query: ``(D,)`` float32.
            top: most rows.
            exact: compare with every row; False: with those that a graph proposes, where faiss is installed; None: by
                the number of rows, see :data:`~florence_mm.formats.approximate.EXACT_UP_TO`.

        Returns:
            numbers of the rows, by falling product and of equal ones by number, and the products in float64.
        """
        if not len(self):
            return np.empty(0, int), np.empty(0)
        if exact is None:
            exact = len(self.items) <= EXACT_UP_TO
        graph = None if exact else self._near_rows()
        if graph is not None:
            wanted, least = max(2 * top, 100), min(top, len(self))
            while wanted < len(self.items):
                rows = graph.near(query, wanted)
                # rows that no longer count take places, and more are asked for
                if self.alive[rows].sum() >= least:
                    return self._ranked(rows, query, top)
                wanted *= 2
        scores = self._products(query)
        scores[~self.alive] = -np.inf
        top = min(top, len(self))
        least = np.partition(scores, len(scores) - top)[len(scores) - top]
        return self._ranked(np.flatnonzero(scores >= least - 2 * _SLACK[self.head['dtype']]), query, top)

    def _near_rows(self) -> NeighbourGraph | None:
        """The graph of all rows, None without faiss."""
        if self._graph is None or self._graph[0] != len(self.items):
            graph = NeighbourGraph.of(self.folder, self.features) if is_available() else None
            self._graph = len(self.items), graph
        return self._graph[1]

    def _products(self, query: np.ndarray) -> np.ndarray:
        """Products ``(N,)`` of all rows, up to rounding."""
        if self.head['dtype'] == 'float32':
            return self.features @ query.astype(np.float32)
        half = torch.from_numpy(np.asarray(self.features)) @ torch.from_numpy(query).half()
        return half.float().numpy()

    def _ranked(self, rows: np.ndarray, query: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """Sort candidates by products in float64, which do not depend on where a row lies."""
        rows = rows[self.alive[rows]]
        products = (self.features[rows].astype(np.float64) * query.astype(np.float64)).sum(1)
        order = np.lexsort((rows, -products))[:top]
        return rows[order], products[order]


def _row_bytes(head: Mapping[str, Any]) -> int:
    return head['dims'] * np.dtype(head['dtype']).itemsize


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _whole_lines(path: Path) -> int:
    """Number of bytes up to the last line end."""
    data = path.read_bytes() if path.is_file() else b''
    return data.rfind(b'\n') + 1


def _read_items(path: Path, rows: int) -> tuple[list[dict[str, Any]], list[int]]:
    """Read what rows stand for, of as many as there are, and the numbers of those that no longer count."""
    items: list[dict[str, Any]] = []
    dead: list[int] = []
    data = path.read_bytes()[: _whole_lines(path)] if path.is_file() else b''
    for number, line in enumerate(data.splitlines(), 1):
        try:
            item = json.loads(line)
            if not isinstance(item, dict) or not (is_whole(item.get('drop')) or isinstance(item.get('file'), str)):
                raise ValueError('it is no item')
        except ValueError as error:
            raise DataError(f'{path}, line {number}, cannot be read ({error}); make the index again') from None
        if 'drop' not in item:
            items.append(item)
        elif not 0 <= item['drop'] < len(items):
            raise DataError(
                f'{path}, line {number}, drops row {item["drop"]}, which is not there; make the index again'
            )
        else:
            dead.append(item['drop'])
    if len(items) > rows:
        raise DataError(
            f'{path} has {len(items)} items, and features.bin beside it only {rows} rows; make the index again'
        )
    return items, dead


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
