"""A folder of features that is appended to and searched, see :mod:`~florence_mm.formats.index_files`.

Not here: the model that the features are of.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log

from florence_mm.errors import DataError, UsageError
from florence_mm.utils.json_files import read_json
from florence_mm.utils.numbers import is_whole

from .approximate import EXACT_UP_TO, NeighbourGraph, is_available, remove_graph
from .index_files import (
    HEAD,
    IndexWriter,
    encode_items,
    read_items,
    remove_files,
    replace_rows,
    rows_path,
    write_head,
)

VERSION = 1
DTYPES = ('float32', 'float16')
# a product of float32 is off by less than the first, one of float16 by less than the second
_SLACK = {'float32': 1e-5, 'float16': 4e-3}
#: Share of rows that no longer count above which :meth:`FeatureIndex.tidy` writes the files again without them.
MOST_DEAD = 0.25
_AT_ONCE = 4096  # rows copied together


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
        self._writer: IndexWriter | None = None
        self._written = 0  # bytes of lines that were read or written

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
        write_head(folder, head)
        return cls(folder, head, [], [])

    @classmethod
    def open(cls, folder: str | Path) -> 'FeatureIndex':
        """Read an index.

        Raises:
            UsageError: there is none, or it is of another version.
            DataError: a file is damaged or missing.
        """
        folder, head, new = Path(folder), None, _read_head(Path(folder))
        while head != new:  # which another process may compact meanwhile
            head = new
            try:
                items, dead, written = read_items(folder, head)
            except (DataError, FileNotFoundError):
                if head == _read_head(folder):
                    raise
            new = _read_head(folder)
        index = cls(folder, head, items, dead)
        index._written = written
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
            try:
                # writable in memory only, as torch asks for it; the file stays as it is
                self._features = np.memmap(rows_path(self.folder, self.head), self.head['dtype'], 'c', shape=shape)
            except FileNotFoundError:
                raise UsageError(
                    f'the index {self.folder} has been written again since it was opened; open it again'
                ) from None
        return self._features

    def append(self, features: np.ndarray, items: Sequence[Mapping[str, Any]], dropped: Sequence[int] = ()) -> None:
        """Append rows, on disk before this returns.

        Args:
            features: ``(n, D)``, L2-normalised.
            items: what each row stands for.
            dropped: numbers of earlier rows that no longer count.

        Raises:
            ValueError: the shape is another.
            UsageError: another process writes to the index, or has written since it was opened; or the disk is full,
                and the index is as before.
        """
        if features.shape != (len(items), self.head['dims']):
            raise ValueError(f'features have shape {features.shape}; expected {(len(items), self.head["dims"])}')
        lines = encode_items([*({'drop': int(number)} for number in dropped), *items])
        self.lock().append(np.ascontiguousarray(features, self.head['dtype']).tobytes(), lines, len(items))
        self._written = self._writer.written
        self.items += [dict(item) for item in items]
        self.alive[list(dropped)] = False
        self.alive = np.concatenate([self.alive, np.ones(len(items), bool)])

    def lock(self) -> IndexWriter:
        """Open the files for appending until :meth:`close`, without what a kill has left half written.

        Raises:
            UsageError: another process writes to the index, or has written since it was opened.
        """
        if self._writer is None:
            self._writer = IndexWriter(self.folder, self.head, len(self.items), self._written)
        return self._writer

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def remove(self) -> None:
        """Remove the files of the index, and the folder if nothing else is in it."""
        self.close()
        remove_graph(self.folder)
        (self.folder / HEAD).unlink(missing_ok=True)
        remove_files(self.folder)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def tidy(self) -> None:
        """Prepare for search: compact where many rows no longer count (:data:`MOST_DEAD`), build the graph of a large
        index."""
        if len(self.items) - len(self) > MOST_DEAD * len(self.items):
            try:
                self.compact()
            except OSError as error:
                text = f'the index {self.folder} keeps rows of files that are gone ({error.strerror})'
                print_log(text, 'current', logging.WARNING)
        if len(self.items) > EXACT_UP_TO:
            self._near_rows()

    def compact(self) -> None:
        """Write the files again without the rows that no longer count; a kill leaves the old index or the new one.

        Raises:
            UsageError: another process writes to the index, or has written since it was opened.
            OSError: the disk is full; the index is as before.
        """
        self.lock()
        kept, items = np.flatnonzero(self.alive), self.items
        features = self.features
        parts = (features[kept[start : start + _AT_ONCE]] for start in range(0, len(kept), _AT_ONCE))
        self.items = [items[row] for row in kept]
        try:
            self.head = replace_rows(self.folder, self.head, parts, self.items)
        except OSError:
            self.items = items
            raise
        self.close()
        remove_graph(self.folder)
        self.alive = np.ones(len(kept), bool)
        self._features = self._graph = None
        self._written = len(encode_items(self.items))

    def search(self, query: np.ndarray, top: int, exact: bool | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows with the largest products.

        Args:
            query: ``(D,)`` float32.
            top: most rows.
            exact: compare with every row; False: with those that a graph proposes, where faiss is installed; None: by
                the number of rows, see :data:`~florence_mm.formats.approximate.EXACT_UP_TO`.

        Returns:
            numbers of the rows, by falling product and of equal ones by number, and the products in float64.

        Raises:
            DataError: the index has features of another width, or with values that are no numbers.
        """
        if not len(self):
            return np.empty(0, int), np.empty(0)
        if query.shape != (self.head['dims'],):
            raise DataError(
                f'the index {self.folder} has features {self.head["dims"]} wide, and the query has shape '
                f'{query.shape}; make the index again with the model that is searched with'
            )
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
        if not np.isfinite(scores).all():
            row = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise DataError(
                f'row {row} of {rows_path(self.folder, self.head)} has no finite product with the query, as after '
                'damage; make the index again'
            )
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


def _read_head(folder: Path) -> dict[str, Any]:
    if not (folder / HEAD).is_file():
        raise UsageError(f'{folder} has no index.json; make an index first, or name the folder of one')
    head = read_json(folder / HEAD)
    if head.get('version') != VERSION:
        raise UsageError(f'{folder} has an index of version {head.get("version")!r}, expected {VERSION}; make it again')
    generation = head.get('generation', 0)
    right = is_whole(head.get('dims')) and head['dims'] > 0 and is_whole(generation) and 0 <= generation < 1 << 63
    if head.get('dtype') not in DTYPES or not right:
        raise DataError(f'{folder / HEAD} has no usable dims and dtype; make the index again')
    return head
