"""Flickr30k Entities as published (arXiv 1505.04870): captions with marked phrases, and the boxes of their entities.

``Sentences/<id>.txt`` has a caption a line, as in ``[/EN#283585/people Two men] are cooking .``, and
``Annotations/<id>.xml`` the boxes of each entity.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from florence_mm.errors import DataError
from florence_mm.language.regions import Box, Region
from florence_mm.utils.text_files import read_lines

from .annotated import AnnotatedPicture, PixelPlaces

_PHRASE = re.compile(r'\[/EN#(?P<entity>\d+)(?:/[^\s\]]+)? (?P<words>[^\[\]]+)\]')


class MarkedCaption(NamedTuple):
    """A caption of ``Sentences``.

    Attributes:
        text: without marks.
        phrases: words and entity of each phrase, in order.
    """

    text: str
    phrases: tuple[tuple[str, str], ...]


def parse_marked_caption(line: str) -> MarkedCaption:
    """Parse a line of ``Sentences``.

    Raises:
        ValueError: a mark is not closed or of another form; the message is only the reason, without file.

    >>> parse_marked_caption('[/EN#1/people Two men] cook [/EN#2/other a meal] .')
    MarkedCaption(text='Two men cook a meal .', phrases=(('Two men', '1'), ('a meal', '2')))
    """
    phrases = tuple((' '.join(match['words'].split()), match['entity']) for match in _PHRASE.finditer(line))
    text = _PHRASE.sub(lambda match: match['words'], line)
    if '[/EN#' in text:
        raise ValueError(f'a mark of an entity in {line!r} is not of the form [/EN#1/people Two men]')
    return MarkedCaption(' '.join(text.split()), phrases)


def read_flickr30k_entities(
    ids_file: str | Path, sentences: str | Path, annotations: str | Path | None
) -> Iterator[AnnotatedPicture | DataError]:
    """Yield the pictures of a split with their captions and the boxes of the phrases.

    A phrase has all boxes of its entity, one phrase several. Phrases of entities without a box, such as those of the
    whole scene, have no region. Pictures are ``<id>.jpg``.

    Args:
        ids_file: the split, an id a line, such as ``train.txt``.
        sentences: folder of the captions.
        annotations: folder of the boxes; None: without boxes, so that no phrase has a region.

    Raises:
        DataError: there is no file of the split.
    """
    for id_ in read_lines(ids_file, 'an id of a picture a line'):
        where = f'{ids_file}, picture {id_}'
        caption_file = Path(sentences, f'{id_}.txt')
        try:
            lines = read_lines(caption_file, 'a marked caption a line')
            clipped, boxes = (0, {}) if annotations is None else _read_boxes(Path(annotations, f'{id_}.xml'))
            phrases = []
            for line in lines:
                caption = parse_marked_caption(line)
                found = [Region(text, boxes=boxes[entity]) for text, entity in caption.phrases if entity in boxes]
                phrases.append((caption.text, tuple(found)))
        except DataError as error:
            yield error
            continue
        except ValueError as error:
            yield DataError(f'{where}: {error}')
            continue
        texts = tuple(text for text, _ in phrases)
        yield AnnotatedPicture(f'{id_}.jpg', where, texts=texts, phrases=tuple(phrases), clipped=clipped)


def _read_boxes(path: Path) -> tuple[int, dict[str, tuple[Box, ...]]]:
    """How many boxes of a picture are clipped, and the boxes of each entity that has some.

    Pixels are counted from 1, and corners read as the code beside the files does: less 1.
    """
    if not path.is_file():
        raise DataError(f'there are no boxes {path}; correct `box_folder`, or take the picture out of the split')
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        raise DataError(f'{path} is not a whole XML file ({error}); download it again') from None
    try:
        places = PixelPlaces(*(_number(root.find(f'size/{side}'), side) for side in ('width', 'height')))
        boxes: dict[str, list[Box]] = {}
        for number, item in enumerate(root.iter('object')):
            corners = item.find('bndbox')
            if corners is None:  # of the whole scene, or not to be seen
                continue
            x0, y0, x1, y1 = (_number(corners.find(key), key) - 1 for key in ('xmin', 'ymin', 'xmax', 'ymax'))
            box = places.box([x0, y0, x1 - x0, y1 - y0], f'object {number}')
            for name in item.iter('name'):
                boxes.setdefault((name.text or '').strip(), []).append(box)
    except ValueError as error:
        raise DataError(f'{path}: {error}') from None
    return places.clipped, {entity: tuple(found) for entity, found in boxes.items()}


def _number(element: ElementTree.Element | None, key: str) -> float:
    try:
        return float(element.text)
    except (AttributeError, TypeError, ValueError):  # without element or text
        raise ValueError(f'{key} is missing or no number; download the file again') from None
