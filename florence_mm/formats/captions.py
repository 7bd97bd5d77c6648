"""Checks of captions and other texts in data files."""

from collections.abc import Iterable, Mapping
from typing import Any

from florence_mm.language.labels import normalize_text


def checked_caption(text: Any, name: str = 'text') -> str:
    """Check that a text is a non-empty string that can be encoded as UTF-8, and return it.

    Args:
        text: the text.
        name: what the message calls it.

    Raises:
        ValueError: it is not; the message is only the reason, without file or line.
    """
    if not isinstance(text, str):
        raise ValueError(f'the {name} must be a string, but is {text!r}')
    # most texts begin with a letter and need no normalising here
    if not (text[:1].isalnum() or normalize_text(text)):
        raise ValueError(f'the {name} {text!r} is empty')
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f'the {name} {text!r} is not valid UTF-8') from None
    return text


def checked_captions(texts: Any) -> list[str]:
    """Check that ``texts`` is a non-empty list of usable strings, and return it.

    Raises:
        ValueError: it is not; the message is only the reason, without file or line.
    """
    if not isinstance(texts, Iterable) or isinstance(texts, (str, bytes, Mapping)):
        raise ValueError(f'`texts` must be a list of strings, but is {texts!r}')
    texts = [checked_caption(text, 'text') for text in texts]
    if not texts:
        raise ValueError('`texts` is an empty list')
    return texts
