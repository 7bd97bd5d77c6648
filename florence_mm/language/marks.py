"""Marks in the texts of tasks: ``<loc_0>``, ``<loc_1>`` … for coordinates, ``<sep>``, ``<poly>`` and the others that
Florence-2's vocabulary has (arXiv 2311.06242).
"""

import re
from typing import Literal, NamedTuple

#: Marks before the locations in the public vocabulary, in its order; the public checkpoints write none of them.
MARKS_BEFORE = ('<od>', '</od>', '<ocr>', '</ocr>')

#: Marks after the locations in the public vocabulary, in its order and spelling.
MARKS_AFTER = (
    '<cap>',
    '</cap>',
    '<ncap>',
    '</ncap>',
    '<dcap>',
    '</dcap>',
    '<grounding>',
    '</grounding>',
    '<seg>',
    '</seg>',
    '<sep>',
    '<region_cap>',
    '</region_cap>',
    '<region_to_desciption>',
    '</region_to_desciption>',
    '<proposal>',
    '</proposal>',
    '<poly>',
    '</poly>',
    '<and>',
)

#: Between the parts of an outline.
SEPARATOR = '<sep>'

#: Around the outline of one object.
POLYGON, POLYGON_END = '<poly>', '</poly>'

#: Start, end and padding of texts as BART's tokenizer writes them; they are no part of an answer.
SPECIAL = ('<s>', '</s>', '<pad>')

#: Matches a location, whose number is the group ``bin``, or another mark.
MARK = re.compile(rf'<loc_(?P<bin>[0-9]{{1,9}})>|{"|".join(map(re.escape, (*MARKS_BEFORE, *MARKS_AFTER)))}')

#: Matches what no text of a task may have in it, as it would not be read as text.
RESERVED = re.compile(f'{MARK.pattern}|{"|".join(SPECIAL)}')


class Piece(NamedTuple):
    """A piece of the text of a task.

    Attributes:
        kind: what it is.
        text: a text without marks, or the mark; for a location its mark too.
        bin: of a location; -1 otherwise.
    """

    kind: Literal['text', 'location', 'mark']
    text: str
    bin: int = -1


def location_mark(number: int) -> str:
    """Mark of a bin, such as ``<loc_7>``."""
    return f'<loc_{number}>'


def split_marks(text: str) -> list[Piece]:
    """Split a text at its marks; pieces of white space alone between them are left out.

    >>> [piece.text for piece in split_marks('a dog<loc_1><loc_2> <sep>')]
    ['a dog', '<loc_1>', '<loc_2>', '<sep>']
    """
    pieces, end = [], 0
    for match in MARK.finditer(text):
        if text[end : match.start()].strip():
            pieces.append(Piece('text', text[end : match.start()]))
        number = match['bin']
        pieces.append(Piece('mark', match[0]) if number is None else Piece('location', match[0], int(number)))
        end = match.end()
    if text[end:].strip():
        pieces.append(Piece('text', text[end:]))
    return pieces
