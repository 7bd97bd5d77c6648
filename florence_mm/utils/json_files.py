"""Reading JSON files: one sentence for each way in which a file is not what it says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from florence_mm.errors import DataError

_NAMES = {dict: 'an object', list: 'a list', str: 'a text', bool: 'a truth value', int: 'a number', float: 'a number'}


def read_json(
    path: str | Path,
    kind: type | tuple[type, ...] = dict,
    missing: str = 'correct the path',
    object_hook: Callable[[dict], Any] | None = None,
    what: str = 'file',
) -> Any:
    """Read a whole JSON file, as UTF-8 or, with its byte order mark, UTF-16 or UTF-32.

    Args:
        path: the file.
        kind: ``dict``, ``list`` or both: what the top level must be.
        missing: what to do if there is no such file, the end of that message.
        object_hook: replaces each object while parsing, see :func:`json.loads`.
        what: what the file is, for that message.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: see :func:`parse_json`, or the top level is of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'there is no {what} {path}; {missing}')
    content = parse_json(path.read_bytes(), str(path), object_hook)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(content, kinds):
        expected = ' or '.join(_NAMES[item] for item in kinds)
        raise DataError(f'{path} holds {json_kind(content)}; expected {expected}')
    return content


def parse_json(data: bytes, where: str, object_hook: Callable[[dict], Any] | None = None) -> Any:
    """Parse the bytes of a JSON document; a key twice in one object is an error, as one of the values would be lost.

    Args:
        data: UTF-8, with or without a byte order mark, or UTF-16 or UTF-32.
        where: the file, and the line or entry, for messages.
        object_hook: replaces each object while parsing, see :func:`json.loads`.

    Raises:
        DataError: the data are empty, of another encoding, cut off or otherwise not JSON, or nested too deeply.
    """
    if not data or data.isspace():
        raise DataError(f'{where} is empty; expected JSON, so write or copy it again')
    encoding = json.detect_encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f'{where} is not {encoding.upper()} text (byte {data[error.start]:#04x} at position {error.start}); '
            'save it as UTF-8'
        ) from None
    del data  # so that a file of gigabytes is in memory only once while it is parsed

    hook = unique_keys if object_hook is None else lambda pairs: object_hook(unique_keys(pairs))
    try:
        return json.loads(text, object_pairs_hook=hook)
    except RecursionError:
        raise DataError(f'{where} cannot be read as JSON (lists or objects are nested too deeply)') from None
    except ValueError as error:
        raise DataError(f'{where} cannot be read as JSON ({error}); write or copy it again') from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict, as a parser's ``object_pairs_hook``.

    Raises:
        ValueError: a key occurs twice; the message names it.
    """
    item = dict(pairs)
    if len(item) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f'the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice')
    return item


def json_kind(value: Any) -> str:
    """Name the kind of a parsed value, such as 'a list', for messages."""
    return _NAMES.get(type(value), 'null' if value is None else f'a {type(value).__name__}')


def require_list(content: dict, key: str, path: str | Path, expected: str) -> list:
    """Return the list under ``key`` of a file's object.

    Args:
        content: the object.
        key: name of the list.
        path: the file, for the message.
        expected: what the file should have been, such as 'a file in the format of VQAv2', for the message.

    Raises:
        DataError: the key is missing, or is no list.
    """
    if not isinstance(content.get(key), list):
        raise DataError(f'{path} has no list {key!r}; expected {expected}')
    return content[key]
