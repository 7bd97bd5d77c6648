"""Checks of captions and other texts in data files."""

from collections.abc import Iterable, Mapping
from typing import Any

from florence_mm.errors import shown
from florence_mm.language.labels import is_blank
from florence_mm.utils.text_files import is_encodable


def checked_caption(text: Any, name: str = 'text') -> str:
    """Check that a text is a string with something to read that can be encoded as UTF-8, and return it.

    Args:
        text: the text.
        name: what the message calls it.

    Raises:
        ValueError: it is not; the message is only the reason, without file or line.
    """
    if type(text) is str and text[:1].isalnum() and text.isascii():  # as most are
        return text
    if not isinstance(text, str):
        raise ValueError(f'the {name} must be a string, but is {shown(text)}')
    if is_blank(text):
        raise ValueError(f'the {name} {shown(text)} is empty')
    if not is_encodable(text):
        raise ValueError(f'the {name} {shown(text)} is not valid UTF-8')
    return text


def checked_path(path: Any, name: str = 'image path') -> str:
    """Check that a path in a data file is a usable string, and return it; arguments as in :func:`checked_caption`.

    Raises:
        ValueError: it is not; the message is only the reason, without file or line.
    """
    if '\0' in checked_caption(path, name):
        raise ValueError(f'the {name} {shown(path)} has a NUL character, which no file name can have')
    return path


def checked_captions(texts: Any) -> list[str]:
    """Check that ``texts`` is a non-empty list of usable strings, and return it.

    Raises:
        ValueError: it is not; the message is only the reason, without file or line.
    """
    if not isinstance(texts, Iterable) or isinstance(texts, (str, bytes, Mapping)):
        raise ValueError(f'`texts` must be a list of strings, but is {shown(texts)}')
    texts = [checked_caption(text, 'text') for text in texts]
    if not texts:
        raise ValueError('`texts` is an empty list')
    return texts
