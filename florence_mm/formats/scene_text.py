"""Texts in pictures: the annotations of COCO-Text (arXiv 1601.07140) and TextOCR (arXiv 2105.05486) as published."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from florence_mm.errors import DataError, shown
from florence_mm.language.labels import is_blank
from florence_mm.language.regions import Point, Polygon, Region, clockwise, from_top_left
from florence_mm.utils.json_files import read_json

from .annotated import AnnotatedPicture, PixelPlaces, read_each
from .captions import checked_caption

# corners of a word: of TextOCR, of COCO-Text 2 and of COCO-Text 1
_OUTLINES = ('points', 'mask', 'polygon')
# how TextOCR writes a word that nobody can read
_ILLEGIBLE = '.'


def read_scene_text(path: str | Path, split: str | None = None) -> Iterator[AnnotatedPicture | DataError]:
    """Yield the pictures with their legible words, each with a quadrilateral and a box.

    The quadrilateral is the outline of the word if that has four corners, clockwise from the one that the file has
    first, where reading starts; the smallest rotated rectangle, from its top left, around one of more, or one whose
    sides cross, of which TextOCR has some; and the box if there is no outline. Illegible and empty words are left out.

    Args:
        path: ``COCO_Text.json``, ``cocotext.v2.json``, ``TextOCR_0.1_train.json`` or their like.
        split: only pictures of this ``set``, such as ``'train'``; None: all.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: the file is damaged or of another kind, a word is of a picture that is not in it, or there is no such
            split.
    """
    content = read_json(path, missing='correct `ann_file` and `data_root`', what='annotation file')
    for key in ('imgs', 'anns'):
        if not isinstance(content.get(key), dict):
            raise DataError(f'{path} has no object {key!r}; expected a file of COCO-Text or TextOCR')
    words: dict[str, list[tuple[str, dict]]] = {id_: [] for id_ in content['imgs']}
    for id_, word in content['anns'].items():
        image = str(word.get('image_id')) if isinstance(word, dict) else None
        if image not in words:
            raise DataError(
                f'{path}: annotation {id_} has image_id {shown(image)}, which is none of the {len(words)} in imgs; '
                'add it there or remove the annotation'
            )
        words[image].append((id_, word))
    splits = {str(image.get('set')) for image in content['imgs'].values() if isinstance(image, dict)}
    if split is not None and split not in splits:
        raise DataError(f'{path} has no split {split!r}; it has {", ".join(sorted(splits))}; give one of these')
    for id_, image in content['imgs'].items():
        where = f'{path}, image {id_}'
        if not isinstance(image, dict) or not isinstance(image.get('file_name'), str):
            yield DataError(f'{where}: no file_name; expected that of the picture')
            continue
        if split is not None and image.get('set') != split:
            continue
        try:
            places = PixelPlaces(image.get('width'), image.get('height'))
        except ValueError as error:
            yield DataError(f'{where}: {error}')
            continue
        legible = [word for word in words[id_] if _is_legible(word[1])]
        regions, faults = read_each(legible, functools.partial(_word, places=places))
        yield AnnotatedPicture(image['file_name'], where, regions, clipped=places.clipped, faults=faults)


def _is_legible(word: Mapping[str, Any]) -> bool:
    text = word.get('utf8_string')
    if word.get('legibility', 'legible') != 'legible' or text is None or text == _ILLEGIBLE:
        return False
    return not isinstance(text, str) or not is_blank(text)


def _word(identified: tuple[str, Mapping[str, Any]], places: PixelPlaces) -> list[Region]:
    id_, word = identified
    what = f'annotation {id_}'
    text = checked_caption(word['utf8_string'], f'utf8_string of {what}')
    box = places.box(word.get('bbox'), what)
    outline = next((word[key] for key in _OUTLINES if word.get(key)), None)
    if outline is None:
        x0, y0, x1, y1 = box
        return [Region(text, (box,), quad=((x0, y0), (x1, y0), (x1, y1), (x0, y1)))]
    corners = places.polygon(outline, what)
    return [Region(text, (box,), quad=_quad(corners, places))]


def _quad(corners: Polygon, places: PixelPlaces) -> Polygon:
    if len(corners) == 4 and not _crosses_itself(corners):
        return tuple(clockwise(corners))
    size = np.array([places.width, places.height], dtype=np.float32)
    around = cv2.boxPoints(cv2.minAreaRect(np.array(corners, dtype=np.float32) * size))
    around = np.array(from_top_left(clockwise(around.astype(np.float64).tolist()))) / size
    return tuple(map(tuple, np.clip(around, 0, 1).tolist()))


def _crosses_itself(corners: Polygon) -> bool:
    """Whether two opposite sides of four corners cross."""

    def side(a: Point, b: Point, c: Point) -> float:
        return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])

    def cross(a: Point, b: Point, c: Point, d: Point) -> bool:
        return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0

    a, b, c, d = corners
    return cross(a, b, c, d) or cross(b, c, d, a)
