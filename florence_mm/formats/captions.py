"""Texts of data files: strings with something in them."""

from collections.abc import Iterable, Mapping
from typing import Any

from florence_mm.language.labels import normalize_text


def checked_caption(text: Any, what: str = 'text') -> str:
    """``text`` if it is a string with something in it that can be written as UTF-8.

    Raises:
        ValueError: it is not; the message is the reason alone.
    """
    if not isinstance(text, str):
        raise ValueError(f'the {what} must be a string, but is {text!r}')
    # most texts begin with a letter, so most need no normalising here
    if not (text[:1].isalnum() or normalize_text(text)):
        raise ValueError(f'the {what} {text!r} is empty')
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f'the {what} {text!r} is not valid UTF-8') from None
    return text


def checked_captions(texts: Any) -> list[str]:
    """``texts`` if it is a non-empty list of usable strings.

    Raises:
        ValueError: it is not; the message is the reason alone.
    """
    if not isinstance(texts, Iterable) or isinstance(texts, (str, bytes, Mapping)):
        raise ValueError(f'`texts` must be a list of strings, but is {texts!r}')
    texts = [checked_caption(text, 'text') for text in texts]
    if not texts:
        raise ValueError('`texts` is an empty list')
    return texts
