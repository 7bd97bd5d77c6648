"""Graph of near neighbours beside the features of an index, for approximate search by faiss.

``search.faiss`` is the graph (HNSW), ``search.json`` says of which rows. It only proposes rows, whose products are then
computed exactly; where it does not fit the features it is not used.
"""

import importlib
import importlib.util
import json
import logging
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from mmengine.logging import print_log

from florence_mm.utils.files import write_atomic
from florence_mm.utils.json_files import read_json
from florence_mm.utils.progress import ProgressLog

#: Up to so many rows every one is compared.
EXACT_UP_TO = 100_000
#: Links of a row, and candidates while building and at least while searching.
LINKS, BUILD, SEARCH = 16, 128, 64
GRAPH, GRAPH_HEAD = 'search.faiss', 'search.json'
_AT_ONCE = 2000  # rows added between two lines of progress


def is_available() -> bool:
    """Whether faiss is installed; a log line says how to install it otherwise."""
    if importlib.util.find_spec('faiss') is not None:
        return True
    print_log(
        f'more than {EXACT_UP_TO} items are searched one by one; for approximate search in a fraction of the time, pip '
        "install 'florence_mm[search]'",
        'current',
        logging.WARNING,
    )
    return False


class NeighbourGraph:
    """Rows near a query, by a graph on disk.

    Args:
        folder (Path): of the index.
        graph (Any): faiss's index.
    """

    def __init__(self, folder: Path, graph: Any) -> None:
        self.folder, self.graph = folder, graph

    @classmethod
    def of(cls, folder: Path, features: np.ndarray) -> 'NeighbourGraph':
        """Read the graph of features, bring it up to date, or build it.

        Args:
            folder: of the index; a folder that cannot be written to keeps no graph.
            features: ``(N, D)``, all rows.
        """
        faiss = _faiss()
        graph = _read(faiss, folder, features)
        if graph is None:
            graph = faiss.IndexHNSWFlat(features.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = BUILD
        if graph.ntotal < len(features):
            _add(graph, features)
            _write(faiss, graph, folder, features)
        return cls(folder, graph)

    def near(self, query: np.ndarray, count: int) -> np.ndarray:
        """Numbers of about ``count`` rows with large products with a query ``(D,)``, in no order."""
        self.graph.hnsw.efSearch = max(SEARCH, 2 * count)
        rows = self.graph.search(np.ascontiguousarray(query[None], np.float32), count)[1][0]
        return rows[rows >= 0]


def remove_graph(folder: Path) -> None:
    """Remove the graph of features that are no longer those it is of."""
    for name in (GRAPH_HEAD, GRAPH):
        (folder / name).unlink(missing_ok=True)


def _faiss() -> ModuleType:
    return importlib.import_module('faiss')


def _add(graph: Any, features: np.ndarray) -> None:
    progress = ProgressLog('building the graph of near neighbours', len(features))
    for start in range(graph.ntotal, len(features), _AT_ONCE):
        progress.update(start)
        graph.add(np.ascontiguousarray(features[start : start + _AT_ONCE], np.float32))


def _checksum(features: np.ndarray) -> int:
    """Checksum of rows, read in parts as they may be larger than the memory."""
    value = 0
    for start in range(0, len(features), _AT_ONCE):
        value = zlib.crc32(np.ascontiguousarray(features[start : start + _AT_ONCE]), value)
    return value


def _write(faiss: ModuleType, graph: Any, folder: Path, features: np.ndarray) -> None:
    try:
        # not faiss's own writing, which cannot tell that a disk is full
        data = faiss.serialize_index(graph).tobytes()
        write_atomic(folder / GRAPH, data)
        head = {'rows': len(features), 'features': _checksum(features), 'graph': zlib.crc32(data)}
        write_atomic(folder / GRAPH_HEAD, json.dumps(head) + '\n')
    except OSError as error:
        print_log(f'the graph of near neighbours is not kept ({error})', 'current', logging.WARNING)


def _read(faiss: ModuleType, folder: Path, features: np.ndarray) -> Any:
    """Return the graph of the first rows of these features; None if there is none that fits."""
    file = folder / GRAPH
    if not file.is_file() or not (folder / GRAPH_HEAD).is_file():
        return None
    # faiss reads sizes from the file, so a damaged one must not reach it
    try:
        head, data = read_json(folder / GRAPH_HEAD), file.read_bytes()
        rows = head.get('rows')
        fits = isinstance(rows, int) and rows <= len(features) and head.get('graph') == zlib.crc32(data)
        if fits and head.get('features') == _checksum(features[:rows]):
            graph = faiss.deserialize_index(np.frombuffer(data, np.uint8))
            if graph.ntotal == rows and graph.d == features.shape[1]:
                return graph
    except (ValueError, RuntimeError, OSError) as error:
        print_log(f'{file} cannot be read ({error})', 'current', logging.WARNING)
    print_log(f'{file} does not fit the features and is built again', 'current', logging.WARNING)
    return None
