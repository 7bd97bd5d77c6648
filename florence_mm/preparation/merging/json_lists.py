"""Streaming the entries of one list of a JSON file of any size."""

from collections.abc import Iterator
from pathlib import Path

import ijson

from florence_mm.errors import DataError
from florence_mm.utils.progress import ProgressLog


def iter_list(path: str | Path, key: str) -> Iterator[dict]:
    """Yield the objects of the list under the top-level ``key``, with one object and 64 KiB in memory.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the file is not JSON, the list is missing or empty, or an entry is not an object.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no annotation file {path}; get it or correct the path')
    progress = ProgressLog(f'reading {key} of {path}', path.stat().st_size)
    count = 0
    with path.open('rb') as file:
        items = ijson.items(file, f'{key}.item', use_float=True)
        while True:
            try:
                item = next(items)
            except StopIteration:
                break
            except (ijson.JSONError, UnicodeDecodeError) as error:
                reason = str(error).splitlines()[0]
                raise DataError(f'{path} is not a whole JSON file ({reason}); get it again') from None
            if not isinstance(item, dict):
                raise DataError(f'{path}: entry {count} of {key!r} must be an object, but is {item!r}')
            count += 1
            progress.update(file.tell())
            yield item
    if not count:
        raise DataError(f'{path} has no entries in a list {key!r}; expected a COCO-format annotation file')


def require(item: dict, key: str, kind: type | tuple[type, ...], where: str) -> object:
    """Return the value under ``key`` after checking that its type is ``kind``.

    Raises:
        DataError: it is missing or of another type.
    """
    value = item.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        names = ' or '.join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        got = f'is {value!r}' if key in item else 'is missing'
        raise DataError(f'{where}: `{key}` {got}; expected {names}')
    return value
