"""Text files that people write: names, answers, lists of files."""

import json
from pathlib import Path

from florence_mm.errors import DataError

from .files import FILE, kind_of_file

_LARGEST = 2**29


def read_text(path: str | Path, what: str) -> str:
    """Read a UTF-8 text file, with or without byte-order mark.

    Args:
        path: the file.
        what: its content, for messages, as in ``'an answer a line'``.

    Raises:
        DataError: it does not exist, is a folder, pipe or device, is larger than 512 MiB, or is not UTF-8 text.
    """
    path = Path(path)
    try:
        found = path.stat()
        kind = kind_of_file(found)
        if kind != FILE:
            raise DataError(f'{path} is {kind}; give a text file with {what}')
        if found.st_size > _LARGEST:
            raise DataError(f'{path} has {found.st_size} bytes, too many for a list; give a text file with {what}')
        text = path.read_bytes().decode('utf-8-sig')
    except FileNotFoundError:
        raise DataError(f'{path} does not exist; give a text file with {what}') from None
    except UnicodeDecodeError as error:
        raise DataError(
            f'{path} is not UTF-8 text (byte {error.start + 1} is {error.object[error.start]:#04x}); save it as UTF-8 '
            f'text with {what}'
        ) from None
    except ValueError as error:  # a NUL character in the path
        raise DataError(f'{str(path)!r} cannot be the name of a file ({error}); give a text file with {what}') from None
    if '\0' in text:
        raise DataError(f'{path} has NUL characters and is no text; give a UTF-8 text file with {what}')
    return text


def is_encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8: it holds no half of a surrogate pair, as JSON and names of files may."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def split_lines(text: str) -> list[str]:
    r"""Split a text at ``\n``, ``\r\n`` and ``\r``.

    ``str.splitlines`` also ends a line at characters that a name may contain, such as U+2028.
    """
    return text.replace('\r\n', '\n').replace('\r', '\n').split('\n')


def read_lines(path: str | Path, what: str) -> list[str]:
    """Read the lines of a text file, without blanks at their ends; empty lines are left out.

    Args:
        path: the file.
        what: its content, for messages, as in ``'an answer a line'``.

    Raises:
        DataError: see :func:`read_text`; or there is no line, or the file is JSON.
    """
    lines = [stripped for line in split_lines(read_text(path, what)) if (stripped := line.strip())]
    if not lines:
        raise DataError(f'{path} is empty; write {what}')
    if lines[0][0] in '[{' and _is_json('\n'.join(lines)):
        raise DataError(f'{path} is JSON; write {what}')
    return lines


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
