"""Spacing of written texts, whose tokenizers put a space before punctuation."""

import re

_STOP = re.compile(r'(?<=[^\W_]) (?=[,.;:!?](?:\s|$))')
_CONTRACTION = re.compile(r"(?<=[^\W_]) ?' ?(?=(?:s|m|t|re|ve|ll|d)\b)")


def join_punctuation(text: str) -> str:
    """Remove the spaces that a tokenizer leaves before punctuation and inside contractions.

    Args:
        text: a text that a model has written, such as ``"two digits : a nine , the dog ' s"``.

    Returns:
        the text as it is usually printed, ``"two digits: a nine, the dog's"``.
    """
    return _CONTRACTION.sub("'", _STOP.sub('', text))
