"""Near-duplicates by embeddings of pictures: crops, flips and edits, which perceptual hashes miss.

Features are scaled to length 4000 and rounded to integers. A product of two of them is a sum of integers below 2**24,
which float32 holds exactly in whatever order it is summed, so that no processor, thread or library decides differently.

Up to 20,000 features are compared all with all. More are divided into cells, each around one of the features, a random
choice, as in an inverted file index; only features in one cell are compared. What lies at the border of two cells is
missed there; further divisions around other features find most of it.
"""

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from florence_mm.errors import DataError

from .hamming import choose

#: Length of the rounded features; with the rounding of 30,000 dims, squares stay below 2**24.
LENGTH = 4000
#: Features that are compared all with all.
ALL_WITH_ALL = 20_000
#: Features in a cell, on average, of up to two million, and how often they are divided into cells.
_IN_CELL = 1000
_DIVISIONS = 4
_BLOCK = 1024
_AT_ONCE = 16_384


def quantize(features: np.ndarray) -> np.ndarray:
    """Scale features to :data:`LENGTH` and round them; those that are zero or not finite become zero, near to nothing.

    Args:
        features: ``(N, D)`` floats.

    Returns:
        ``(N, D)`` int16.
    """
    features = features.astype(np.float64)
    features[~np.isfinite(features).all(axis=1)] = 0
    length = np.sqrt((features * features).sum(axis=1, keepdims=True))
    return np.rint(features * (LENGTH / np.where(length > 0, length, 1))).astype(np.int16)


@contextmanager
def read_features(sidecars: Sequence[Path], ids: np.ndarray, folder: Path) -> Iterator[np.ndarray]:
    """Yield the rounded features of samples, ``(N, D)`` int16 in a temporary file of ``folder``.

    Args:
        sidecars: files with the column ``embedding``.
        ids: ``(N,)`` int64, ascending.
        folder: where the file is made; 2 N D bytes.

    Raises:
        DataError: sidecars have embeddings of different widths.
        OSError: the disk has no room for the file.
    """
    from pyarrow import parquet

    rows: np.ndarray | None = None
    with tempfile.TemporaryFile(dir=folder) as file:
        for path in sidecars:
            for batch in parquet.ParquetFile(path).iter_batches(_AT_ONCE, columns=['id', 'embedding']):
                found = np.asarray(batch['id'])
                place = np.searchsorted(ids, found)
                wanted = np.flatnonzero(ids[np.minimum(place, len(ids) - 1)] == found) if len(ids) else place[:0]
                if not len(wanted):
                    continue
                features = _batch_features(batch, wanted)
                if rows is None:
                    shape = (len(ids), features.shape[1])
                    _reserve(file.fileno(), math.prod(shape) * np.dtype(np.int16).itemsize, folder)
                    rows = np.memmap(file, np.int16, 'w+', shape=shape)
                if features.shape[1] != rows.shape[1]:
                    raise DataError(
                        f'{path} has embeddings of width {features.shape[1]}, others have {rows.shape[1]}; run stage A '
                        'with one model'
                    )
                rows[place[wanted]] = quantize(features)
        yield np.empty((0, 1), np.int16) if rows is None else rows


def _reserve(descriptor: int, size: int, folder: Path) -> None:
    """Take a file's place on the disk at once: who writes to the map of a file whose disk is full is killed."""
    if not hasattr(os, 'posix_fallocate'):  # macOS
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        raise OSError(error.errno, f'{error.strerror} for {size / 1e9:.3g} GB of embeddings', str(folder)) from None


def _batch_features(batch: 'object', wanted: np.ndarray) -> np.ndarray:
    import pyarrow as pa

    column = batch['embedding'].take(pa.array(wanted))
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)


def near_to_any(features: np.ndarray, evaluation: Sequence[Path], cosine: float) -> np.ndarray:
    """Whether each feature is near to one of an evaluation set; all are compared with all.

    Args:
        features: ``(N, D)`` int16, see :func:`quantize`.
        evaluation: sidecars with the column ``embedding``.
        cosine: least cosine of near ones.
    """
    from pyarrow import parquet

    near = np.zeros(len(features), bool)
    for path in evaluation:
        for batch in parquet.ParquetFile(path).iter_batches(_AT_ONCE, columns=['embedding']):
            others = quantize(_batch_features(batch, np.arange(len(batch)))).astype(np.float32)
            if len(features) and others.shape[1] != features.shape[1]:
                raise DataError(
                    f'{path} has embeddings of width {others.shape[1]}, the pairs have {features.shape[1]}; run '
                    'stage A on both with one model'
                )
            for start in range(0, len(features), _BLOCK):
                part = features[start : start + _BLOCK].astype(np.float32)
                near[start : start + _BLOCK] |= (part @ others.T).max(axis=1, initial=-np.inf) >= _least(cosine)
    return near


def find_near_features(
    features: np.ndarray, sampling: np.ndarray, cosine: float, among: np.ndarray | None = None
) -> np.ndarray:
    """Find features that are near to an earlier one that stays.

    Args:
        features: ``(N, D)`` int16, see :func:`quantize`; those that are to stay first.
        sampling: ``(N,)`` integers: the features with the smallest ones are the middles of cells.
        cosine: least cosine of near ones.
        among: ``(N,)`` bool, which features count; None: all.

    Returns:
        ``(N,)`` bool.
    """
    stays = np.ones(len(features), bool) if among is None else among.copy()
    counted = stays.copy()
    if stays.sum() <= ALL_WITH_ALL:
        rows = np.flatnonzero(stays)
        stays[rows] = _first_of_near(features, rows, cosine)
        return counted & ~stays
    for division in range(_DIVISIONS):
        rows = np.flatnonzero(stays)
        # with so many middles, finding the nearest one takes as long as comparing within cells
        count = max(1, min(len(rows) // _IN_CELL, math.isqrt(len(rows) // 2)))
        middles = rows[np.argsort(sampling[rows], kind='stable')[division * count : (division + 1) * count]]
        cells = _nearest(features, rows, features[middles].astype(np.float32))
        order = np.argsort(cells, kind='stable')  # ascending rows within a cell
        for cell in np.split(rows[order], np.flatnonzero(np.diff(cells[order])) + 1):
            stays[cell] = _first_of_near(features, cell, cosine)
    return counted & ~stays


def _least(cosine: float) -> float:
    """Product of rounded features from which on they are near."""
    return cosine * LENGTH * LENGTH


def _nearest(features: np.ndarray, rows: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """The nearest middle of each row, the first one of equally near ones."""
    found = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), _BLOCK):
        part = features[rows[start : start + _BLOCK]].astype(np.float32)
        found[start : start + _BLOCK] = (part @ middles.T).argmax(axis=1)
    return found


def _first_of_near(features: np.ndarray, rows: np.ndarray, cosine: float) -> np.ndarray:
    """Which of these rows stay: each that is near to no earlier one that stays."""
    stays = np.zeros(len(rows), bool)
    chosen: list[np.ndarray] = []
    for start in range(0, len(rows), _BLOCK):
        part = features[rows[start : start + _BLOCK]].astype(np.float32)
        left = np.ones(len(part), bool)
        for others in chosen:
            left &= (part @ others.T).max(axis=1, initial=-np.inf) < _least(cosine)
        places = np.flatnonzero(left)
        part = part[places]
        pairs = np.argwhere(np.tril(part @ part.T >= _least(cosine), -1))[:, ::-1]
        mine = choose(len(part), pairs) == np.arange(len(part))
        stays[start + places[mine]] = True
        chosen.append(part[mine])
    return stays
