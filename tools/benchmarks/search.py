"""Search of stored features: exact, and approximate by faiss and usearch, one thread, each in a process of its own.

    python tools/benchmarks/search.py [--items N] [--dims D] [--out FILE]

Features are points around 2,000 random centres, as those of pictures are, and queries are stored features with noise.
Recall is the share of the ten best by a plain matrix product that a library also finds. Memory is what the process
needs more after the index is built. Exit status 1 if a query of the exact search takes more than 20 ms.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from florence_mm.formats.feature_index import FeatureIndex
from florence_mm.utils.files import write_atomic

BAR_MS = 20.0
TOP = 10
QUERIES = 50
#: Links of each item, and candidates while building and searching: the settings of both libraries are these.
LINKS, BUILD, SEARCH = 16, 128, 64
PEERS = {'exact': 'numpy', 'faiss': 'faiss-cpu', 'usearch': 'usearch'}


def make_data(items: int, dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Stored features ``(N, D)`` and queries ``(50, D)``, L2-normalised."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((2000, dims), dtype=np.float32)
    stored = random.standard_normal((items, dims), dtype=np.float32)
    stored += centres[random.integers(0, 2000, items)]
    queries = stored[:QUERIES] + 0.5 * random.standard_normal((QUERIES, dims), dtype=np.float32)
    for x in (stored, queries):
        x /= np.linalg.norm(x, axis=1, keepdims=True)
    return stored, queries


def exact(stored: np.ndarray, folder: Path) -> tuple[Callable[[np.ndarray], np.ndarray], Path]:
    """The search of an index of ours."""
    index = FeatureIndex.create(folder / 'exact', {'fingerprint': 'x'}, stored.shape[1])
    for start in range(0, len(stored), 10_000):
        rows = stored[start : start + 10_000]
        index.append(rows, [{'file': str(start + i)} for i in range(len(rows))])
    index.close()
    opened = FeatureIndex.open(folder / 'exact')
    return lambda query: opened.search(query, TOP, exact=True)[0], folder / 'exact/features.bin'


def faiss(stored: np.ndarray, folder: Path) -> tuple[Callable[[np.ndarray], np.ndarray], Path]:
    """HNSW of faiss."""
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(stored.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = BUILD, SEARCH
    index.add(stored)
    faiss.write_index(index, str(folder / 'faiss'))
    return lambda query: index.search(query[None], TOP)[1][0], folder / 'faiss'


def usearch(stored: np.ndarray, folder: Path) -> tuple[Callable[[np.ndarray], np.ndarray], Path]:
    """HNSW of usearch."""
    from usearch.index import Index

    index = Index(
        ndim=stored.shape[1],
        metric='ip',
        dtype='f32',
        connectivity=LINKS,
        expansion_add=BUILD,
        expansion_search=SEARCH,
    )
    index.add(np.arange(len(stored)), stored, threads=1)
    index.save(str(folder / 'usearch'))
    return lambda query: index.search(query, TOP, threads=1).keys, folder / 'usearch'


def installed_mb(package: str) -> float:
    """Size of a package's installed files, in MB."""
    return sum(file.size or 0 for file in distribution(package).files) / 1e6


def measure(name: str, items: int, dims: int, folder: Path) -> dict[str, Any]:
    """Build and search once."""
    torch.set_num_threads(1)
    stored, queries = make_data(items, dims)
    right = np.argsort(-(queries @ stored.T), axis=1, kind='stable')[:, :TOP]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    search, file = globals()[name](stored, folder)
    built = time.process_time() - start
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    search(queries[0])
    took, found = [], []
    for query in queries:
        start = time.process_time()
        found.append(search(query))
        took.append(time.process_time() - start)
    pairs = zip(found, right, strict=True)
    return {
        'name': name,
        'version': version(PEERS[name]),
        'build_s': round(built, 2),
        'query_ms': round(1e3 * statistics.median(took), 3),
        'recall': float(np.mean([len({*map(int, a)} & {*map(int, b)}) / TOP for a, b in pairs])),
        'memory_mb': round(memory),
        'file_mb': round(file.stat().st_size / 1e6),
        'installed_mb': round(installed_mb(PEERS[name])),
    }


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description='Time the search of stored features, exact and approximate.')
    parser.add_argument('--items', type=int, default=100_000, help='number of stored features (default: 100000)')
    parser.add_argument('--dims', type=int, default=512, help='values of each (default: 512)')
    parser.add_argument('--only', choices=PEERS, action='append', help='measure this one; may be repeated')
    parser.add_argument('--folder', default='/tmp/search_benchmark', help='where indices are written')
    parser.add_argument('--out', help='write the results to this JSON file')
    args = parser.parse_args()
    results = []
    folder = Path(args.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in args.only or [name for name in PEERS if name == 'exact' or find_spec(name) is not None]:
        # memory is measured from a fresh start
        with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as pool:
            results.append(pool.submit(measure, name, args.items, args.dims, folder).result())
        print(json.dumps(results[-1]), flush=True)
    if args.out:
        write_atomic(args.out, json.dumps(results, indent=1))
    return int(any(one['name'] == 'exact' and one['query_ms'] > BAR_MS for one in results))


if __name__ == '__main__':
    sys.exit(main())
