"""Positions of the tokens of a word in a text.

Shape legend: ``T`` tokens of a text.
"""

import re

from torch import Tensor

from .protocol import TextTokenizer


def find_word(word: str, input_ids: Tensor, tokenizer: TextTokenizer) -> list[int]:
    """Find the positions of the tokens of a word in a text, for all its occurrences.

    Case, and punctuation around words, are ignored.

    Args:
        word: the word.
        input_ids: ``(T,)``, ids of the text without padding.
        tokenizer: the tokenizer of the ids; its ``word_starts`` splits them into words.

    Raises:
        ValueError: the word is not in the text.

    >>> from florence_mm.models.tokenizers import MaskedCLIPTokenizer
    >>> tokenizer = MaskedCLIPTokenizer()
    >>> (ids,) = tokenizer(['Is the dog a dalmatian dog?'], max_length=20).input_ids  # the start token stands first
    >>> find_word('DOG', ids, tokenizer), find_word('dalmatian', ids, tokenizer)
    ([3, 7], [5, 6])
    """
    starts = tokenizer.word_starts(input_ids[None])[0].tolist()
    words: list[list[int]] = []
    for place, (token, begins) in enumerate(zip(input_ids.tolist(), starts, strict=True)):
        if token in tokenizer.special_ids:
            words.append([])  # the next token begins a new word
        elif begins or not words:
            words.append([place])
        else:
            words[-1].append(place)
    named = [(_plain(tokenizer.decode(input_ids[places])), places) for places in words if places]
    found = [place for name, places in named if name == _plain(word) and name for place in places]
    if not found:
        known = ', '.join(dict.fromkeys(name for name, _ in named if name))
        raise ValueError(f'the word {word!r} is not in the text {tokenizer.decode(input_ids)!r}; it has {known}')
    return found


def _plain(word: str) -> str:
    return re.sub(r'^\W+|\W+$', '', word).casefold()
