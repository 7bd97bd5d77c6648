"""From an annotated picture to the rows of a task: what is asked about it, and the answer."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from florence_mm.formats.annotated import AnnotatedPicture
from florence_mm.formats.outlines import coarser
from florence_mm.formats.tasks import TaskRow
from florence_mm.language.reading import reading_order
from florence_mm.language.regions import Box, Polygon, Region, bounding_box

Rows = Iterator[TaskRow]


def make_rows(task: str, picture: AnnotatedPicture) -> Rows:
    """Yield the rows of a task about a picture.

    Args:
        task: a key of :data:`MAKERS`.
        picture: the picture; of its regions those are used that have what the task needs, such as an outline.
    """
    for row in MAKERS[task](picture):
        yield replace(row, image=picture.image, task=task)


def is_apart(task: str, picture: AnnotatedPicture) -> bool:
    """Whether each annotation of a picture has rows of its own, which are whole without the others.

    Args:
        task: a key of :data:`MAKERS`.
        picture: the picture.
    """
    apart = (_texts_of_regions, _outlines_of_regions, _outlines, *([_phrases] if picture.phrases else []))
    return MAKERS[task] in apart


def count_left_out(task: str, picture: AnnotatedPicture) -> int:
    """Count what a task has no row for, as it lacks what the task needs.

    These are objects without an outline, or with the box of another one; phrases without an outline; captions without a
    box; and pictures without words to read.

    Args:
        task: a key of :data:`MAKERS`.
        picture: the picture.
    """
    maker = MAKERS[task]
    if maker is _outlines_of_regions:
        return len(picture.regions) - len({region.boxes[0] for region in picture.regions if region.polygons})
    if maker is _outlines:
        return sum(not any(region.polygons for region in regions) for _, regions in picture.phrases)
    if maker is _phrases:
        return sum(not regions for _, regions in picture.phrases)
    return int(maker is _read_text and not picture.regions)


def with_coarser_outlines(picture: AnnotatedPicture, tolerance: float) -> AnnotatedPicture:
    """Leave out corners of all outlines, so that answers get shorter.

    Args:
        picture: the picture.
        tolerance: largest distance from the outline as it was, as a fraction of the picture.
    """

    def reduced(polygon: Polygon) -> Polygon:
        return tuple(map(tuple, coarser(np.array(polygon), tolerance).tolist()))

    def changed(regions: tuple[Region, ...]) -> tuple[Region, ...]:
        return tuple(replace(region, polygons=tuple(map(reduced, region.polygons))) for region in regions)

    phrases = tuple((text, changed(regions)) for text, regions in picture.phrases)
    return replace(picture, regions=changed(picture.regions), phrases=phrases)


def _captions(picture: AnnotatedPicture) -> Rows:
    yield TaskRow('', '', answers=picture.texts)


def _labelled_boxes(picture: AnnotatedPicture) -> Rows:
    yield TaskRow('', '', regions=tuple(Region(region.text, region.boxes) for region in picture.regions))


def _boxes(picture: AnnotatedPicture) -> Rows:
    # several sentences may be of one box
    boxes = dict.fromkeys(box for region in picture.regions for box in region.boxes)
    yield TaskRow('', '', regions=tuple(Region(boxes=(box,)) for box in boxes))


def _labelled_quads(picture: AnnotatedPicture) -> Rows:
    yield TaskRow('', '', regions=tuple(Region(region.text, quad=region.quad) for region in picture.regions))


def _read_text(picture: AnnotatedPicture) -> Rows:
    order = reading_order([bounding_box(region.quad) for region in picture.regions])
    words = [picture.regions[index].text for index in order]
    if words:
        yield TaskRow('', '', answers=(' '.join(words),))


def _grounded_captions(picture: AnnotatedPicture) -> Rows:
    for text, regions in picture.phrases:
        if regions:
            yield TaskRow('', '', text, regions=tuple(Region(region.text, region.boxes) for region in regions))


def _grounded_phrases(picture: AnnotatedPicture) -> Rows:
    for text, found in _by_text(picture).items():
        boxes = dict.fromkeys(box for region in found for box in region.boxes)
        yield TaskRow('', '', text, regions=(Region(text, tuple(boxes)),))


def _phrases(picture: AnnotatedPicture) -> Rows:
    return _grounded_captions(picture) if picture.phrases else _grounded_phrases(picture)


def _outlines(picture: AnnotatedPicture) -> Rows:
    for text, regions in picture.phrases:
        outlines = tuple(Region(polygons=region.polygons) for region in regions if region.polygons)
        if outlines:
            yield TaskRow('', '', text, regions=outlines)


def _texts_of_regions(picture: AnnotatedPicture) -> Rows:
    answers: dict[Box, dict[str, None]] = {}
    for region in picture.regions:
        for box in region.boxes:
            answers.setdefault(box, {})[region.text] = None
    for box, texts in answers.items():
        yield TaskRow('', '', region=box, answers=tuple(texts))


def _outlines_of_regions(picture: AnnotatedPicture) -> Rows:
    done = set()
    for region in picture.regions:
        if region.polygons and region.boxes[0] not in done:
            done.add(region.boxes[0])
            yield TaskRow('', '', region=region.boxes[0], regions=(Region(polygons=region.polygons),))


def _by_text(picture: AnnotatedPicture) -> Mapping[str, list[Region]]:
    found: dict[str, list[Region]] = {}
    for region in picture.regions:
        found.setdefault(region.text, []).append(region)
    return found


#: Makers of rows by task.
MAKERS: Mapping[str, Callable[[AnnotatedPicture], Rows]] = {
    'caption': _captions,
    'detailed_caption': _captions,
    'more_detailed_caption': _captions,
    'detection': _labelled_boxes,
    'dense_region_caption': _labelled_boxes,
    'region_proposal': _boxes,
    'phrase_grounding': _phrases,
    'open_vocabulary_detection': _grounded_phrases,
    'referring_segmentation': _outlines,
    'region_segmentation': _outlines_of_regions,
    'region_category': _texts_of_regions,
    'region_description': _texts_of_regions,
    'region_ocr': _texts_of_regions,
    'ocr': _read_text,
    'ocr_with_region': _labelled_quads,
}
