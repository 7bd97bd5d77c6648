"""Text normalisation and text labels (Florence, section 2.2: pairs with identical text have the same label y)."""

import hashlib
import re
import unicodedata

_SPACE = re.compile(r'\s+')
# spaces, control and format characters, marks that need a letter
_UNSEEN = frozenset(('Zs', 'Zl', 'Zp', 'Cc', 'Cf', 'Mn', 'Me'))
# letters and symbols that show nothing: Hangul fillers, the empty Braille pattern, Khmer inherent vowels
_INVISIBLE = frozenset('\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0')


def normalize_text(text: str) -> str:
    """Normalise a text: Unicode NFKC, case folding, white space runs to one space, no space or full stop at the ends.

    >>> normalize_text(' Two DOGS  on a beach. ')
    'two dogs on a beach'
    """
    text = unicodedata.normalize('NFKC', text).casefold()
    return _SPACE.sub(' ', text).strip(' .')


def is_blank(text: str) -> bool:
    """Whether a text has nothing to read: only spaces, control and zero-width characters, marks without a letter, dots.

    >>> is_blank(' . '), is_blank('\u200b'), is_blank('a'), is_blank('?')
    (True, True, False, False)
    """
    # most texts begin with a letter
    if text[:1].isascii() and text[:1].isalnum():
        return False
    return not any(
        char != '.' and char not in _INVISIBLE and unicodedata.category(char) not in _UNSEEN for char in text
    )


def text_label(text: str) -> int:
    """Hash a text to its 63-bit label, the same on every machine for texts equal after :func:`normalize_text`.

    Two different texts share a label with probability 1e-19 a pair; among the 900 million texts of the
    paper that is one accidental pair in 20 runs.

    Raises:
        ValueError: there is nothing to read in ``text`` (:func:`is_blank`).

    >>> text_label('Two dogs.') == text_label('two  DOGS') != text_label('two cats')
    True
    """
    normalized = normalize_text(text)
    if is_blank(normalized):
        raise ValueError(f'text {text!r} is empty after normalisation; give a caption or a class name')
    return name_label(normalized)


def name_label(name: str) -> int:
    """Hash a name, such as an image's, to a 63-bit label; other than of a text, each of its characters counts.

    >>> name_label('a.jpg') == name_label('a.jpg') != name_label('A.jpg')
    True
    """
    digest = hashlib.blake2b(name.encode('utf-8', 'surrogateescape'), digest_size=8).digest()
    return int.from_bytes(digest, 'big') >> 1
