"""Streaming the entries of one list of a JSON file of any size."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import ijson

from florence_mm.errors import DataError
from florence_mm.utils.progress import ProgressLog

_DEEPEST = 10_000
_SURROGATE = re.compile(rb'\\u[dD][89a-fA-F]')
#: one escape of a UTF-16 unit after another; an even number of backslashes before the first is no part of it
_ESCAPES = re.compile(rb'(?<!\\)(?:\\\\)*((?:\\u[0-9a-fA-F]{4})+)')
_LAST_ESCAPES = re.compile(rb'(?:\\+u[0-9a-fA-F]{4})*(?:\\+(?:u[0-9a-fA-F]{0,3})?)?$')


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
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        twice: list[str] = []
        entry = type('_Entry', (_UniqueKeys,), {'twice': twice})
        items = ijson.items(_Whole(file, path), f'{key}.item', use_float=True, map_type=entry)
        while True:
            try:
                item = next(items)
            except StopIteration:
                break
            except (ijson.JSONError, UnicodeDecodeError) as error:
                text = error.args[0] if error.args else ''  # bytes where the file is not UTF-8
                reason = (text.decode(errors='replace') if isinstance(text, bytes) else str(error)).splitlines()[0]
                raise DataError(f'{path} is not a whole JSON file ({reason}); get it again') from None
            if twice:
                raise DataError(f'{path}: the key {twice[0]!r} occurs twice in entry {count} of {key!r}; remove one')
            if not isinstance(item, dict):
                raise DataError(f'{path}: entry {count} of {key!r} must be an object, but is {item!r}')
            count += 1
            progress.update(file.tell())
            yield item
    if not count:
        raise DataError(f'{path} has no entries in a list {key!r}; expected a COCO-format annotation file')


class _UniqueKeys(dict):
    """Object of a JSON file that notes a key that comes twice, of which a dict would keep the last value."""

    twice: list[str]

    def __setitem__(self, key: str, value: object) -> None:
        if key in self:
            self.twice.append(key)
        super().__setitem__(key, value)


class _Whole:
    """Pass the bytes of a JSON file on to its parser, after looking for what that does not refuse.

    It would replace halves of surrogate pairs unnoticed, and takes a time that grows with the square of the nesting.

    Args:
        file: the file.
        path: its name, for the message.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path, self._rest, self._depth = file, path, b'', 0

    def read(self, size: int) -> bytes:
        """Read a block.

        Raises:
            DataError: it has an escape of half a character, or is nested too deeply.
        """
        data = self._file.read(size)
        # brackets in texts are counted too, as most of them come in pairs
        self._depth += sum(data.count(mark) for mark in (b'[', b'{')) - sum(data.count(mark) for mark in (b']', b'}'))
        if self._depth > _DEEPEST:
            raise DataError(f'{self._path} is not a COCO-format file: its lists or objects are nested too deeply')
        text = self._rest + data
        # escapes at the end of a block are looked at with the next, as a pair may lie across
        self._rest = _LAST_ESCAPES.search(text)[0] if data and b'\\' in text[-6:] else b''
        if _SURROGATE.search(text):
            for escapes in _ESCAPES.findall(text, 0, len(text) - len(self._rest)):
                units = bytes.fromhex(escapes.decode().replace('\\u', ''))
                try:
                    units.decode('utf-16-be')
                except UnicodeDecodeError:
                    raise DataError(
                        f'{self._path} has the text {escapes.decode()}, half of a character; correct it'
                    ) from None
        return data


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
