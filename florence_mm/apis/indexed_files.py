"""Files of an index, and whether they are still what was indexed."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from florence_mm.formats.feature_index import FeatureIndex
from florence_mm.utils.json_files import read_json

#: What a search writes into its output folder.
DRAWN = ('search.png', 'search.json')


@dataclass
class IndexReport:
    """What indexing did.

    Attributes:
        added: number of new items.
        unchanged: number of items that were in the index.
        changed: number of items whose file was another than in the index.
        vanished: number of items of the index whose file is gone.
        drawings: number of drawings of earlier searches among the items, which are left out.
        failed: results with ``file`` and ``error`` of items that could not be read.
    """

    added: int = 0
    unchanged: int = 0
    changed: int = 0
    vanished: int = 0
    drawings: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)


def is_file(item: str | Path) -> bool:
    """Whether an item is a file, not a URL."""
    return '://' not in str(item)


def item_key(item: str | Path) -> str:
    """Name of an item in the index: an absolute path, so that results are the same from any folder, or a URL."""
    return os.path.abspath(item) if is_file(item) else str(item)  # noqa: PTH100


def is_drawing(item: str | Path) -> bool:
    """Whether an item is the grid of an earlier search, beside its results."""
    if not is_file(item) or Path(item).name != DRAWN[0]:
        return False
    results = Path(item).with_name(DRAWN[1])
    try:
        return {'index', 'queries'} == set(read_json(results))
    except (OSError, ValueError):  # it is a picture of that name
        return False


def file_stamp(file: str | Path) -> dict[str, int] | None:
    """Size and time of a file; None if it is gone."""
    try:
        status = Path(file).stat()
    except OSError:
        return None
    return {'size': status.st_size, 'mtime_ns': status.st_mtime_ns}


def kept_stamp(index: FeatureIndex, row: int) -> dict[str, int]:
    """Size and time of a row's file as it was indexed."""
    return {key: index.items[row].get(key) for key in ('size', 'mtime_ns')}


def item_state(index: FeatureIndex, row: int) -> str:
    """State of a row's file: ``'same'``, ``'changed'``, ``'vanished'``, or ``'unknown'`` for a URL."""
    file = index.items[row]['file']
    if not is_file(file):
        return 'unknown'
    now = file_stamp(file)
    return 'vanished' if now is None else 'same' if now == kept_stamp(index, row) else 'changed'


def fresh_items(index: FeatureIndex, listed: Iterable, known: Mapping[str, int], report: IndexReport) -> Iterator[Any]:
    """Yield the items that are not in the index as they are now, each once, without drawings of earlier searches.

    Args:
        index: the index.
        listed: files, URLs and objects.
        known: row of each item that counts.
        report: counts what is left out.
    """
    seen: set[str] = set()
    for item in listed:
        row = None
        if isinstance(item, (str, Path)):
            key = item_key(item)
            if key in seen:
                continue
            seen.add(key)
            if is_drawing(item):
                report.drawings += 1
                continue
            row = known.get(key)
        if row is None or not index.alive[row] or is_file(item) and file_stamp(item) != kept_stamp(index, row):
            yield item
        else:
            report.unchanged += 1
