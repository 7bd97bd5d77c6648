"""Files of an index, and whether they are still what was indexed."""

import os
from pathlib import Path

from florence_mm.formats.feature_index import FeatureIndex


def is_file(item: str | Path) -> bool:
    """Whether an item is a file, not a URL."""
    return '://' not in str(item)


def item_key(item: str | Path) -> str:
    """Name of an item in the index: an absolute path, so that results are the same from any folder, or a URL."""
    return os.path.abspath(item) if is_file(item) else str(item)  # noqa: PTH100


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
