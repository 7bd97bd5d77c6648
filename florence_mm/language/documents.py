"""Documents of texts and pictures in order, and how Flamingo writes them as one text with marks (arXiv 2204.14198).

``<image>`` stands where a picture is. ``<|endofchunk|>``, the paper's ``<EOC>`` in the spelling of public checkpoints,
ends what is said of a picture: it stands before each picture that something precedes, and at the end.
"""

import re
from collections.abc import Iterator, Sequence

#: Where a picture is.
IMAGE_MARK = '<image>'

#: Where what is said of a picture ends.
CHUNK_END = '<|endofchunk|>'

#: In the order of public vocabularies.
DOCUMENT_MARKS = (CHUNK_END, IMAGE_MARK)

#: Matches a mark.
DOCUMENT_MARK = re.compile('|'.join(map(re.escape, DOCUMENT_MARKS)))

#: A text, or None where a picture is.
DocumentPart = str | None


def write_document(parts: Sequence[DocumentPart]) -> str:
    """Write a document as one text with marks.

    Args:
        parts: texts, and None where a picture is, in order. Neighbouring texts are joined by a space.

    Raises:
        ValueError: there are no parts, or a text has a mark in it.

    >>> write_document(['two dogs', None, 'a cat', 'asleep', None, 'a bird'])
    'two dogs<|endofchunk|><image>a cat asleep<|endofchunk|><image>a bird<|endofchunk|>'
    """
    if not parts:
        raise ValueError('the document has neither texts nor pictures')
    chunks: list[list[str]] = [[]]
    for part in parts:
        if part is None:
            chunks.append([])
            continue
        if found := DOCUMENT_MARK.search(part):
            raise ValueError(f'a text of the document has {found[0]!r}, which stands for what is no text; take it out')
        if part.strip():
            chunks[-1].append(part.strip())
    first, *shown = (' '.join(chunk) for chunk in chunks)
    written = [first] if first else []
    return ''.join(f'{text}{CHUNK_END}' for text in [*written, *(f'{IMAGE_MARK}{text}' for text in shown)])


def marked_pieces(text: str) -> Iterator[str]:
    """Split a text with marks into marks and the texts between them, without empty ones.

    >>> list(marked_pieces('<image>a cat<|endofchunk|>'))
    ['<image>', 'a cat', '<|endofchunk|>']
    """
    end = 0
    for match in DOCUMENT_MARK.finditer(text):
        if match.start() > end:
            yield text[end : match.start()]
        yield match[0]
        end = match.end()
    if end < len(text):
        yield text[end:]


def has_lessons(parts: Sequence[DocumentPart]) -> bool:
    """Whether a text stands behind a picture, without which there is nothing to learn about it."""
    behind = parts[parts.index(None) + 1 :] if None in parts else ()
    return any(part is not None and part.strip() for part in behind)


def first_pictures(parts: Sequence[DocumentPart], most: int) -> list[DocumentPart]:
    """Leave out what stands from picture number ``most + 1`` on, and pictures at the end of which nothing is said.

    >>> first_pictures([None, 'a', None, 'b', None, 'c'], most=2), first_pictures([None, 'a', None], most=2)
    ([None, 'a', None, 'b'], [None, 'a'])
    """
    kept: list[DocumentPart] = []
    for part in parts:
        if part is None and kept.count(None) == most:
            break
        kept.append(part)
    while kept and kept[-1] is None:
        kept.pop()
    return kept
