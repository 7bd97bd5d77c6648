"""Annotations one by one: a text, a region with its text, or a phrase of a text with its region.

The lines of task files (:mod:`florence_mm.formats.tasks`) are taken apart into items, which sources add, filters drop
and rounds merge, and what is kept is put together again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from florence_mm.formats.tasks import DIGITS, TaskRow, check_task_row
from florence_mm.language.labels import is_blank, normalize_text
from florence_mm.language.regions import Box, Polygon, Region, bounding_box, check_box
from florence_mm.language.task_list import TASKS, find_task
from florence_mm.utils.numbers import is_finite
from florence_mm.utils.text_files import is_encodable

from . import annotation_reasons as reasons

#: Source of annotations that came with the pictures.
GIVEN = 'given'
#: Kinds of annotation (Florence-2, arXiv 2311.06242, section 3): texts of pictures, texts of regions, regions of the
#: phrases of a text.
Kind = Literal['text', 'region', 'phrase']
KINDS: tuple[Kind, ...] = ('text', 'region', 'phrase')


@dataclass(frozen=True)
class Item:
    """One annotation of a picture.

    Attributes:
        task: name of the task that it answers.
        text: the caption, the region's text, or the phrase.
        box: the region; of an outline or quadrilateral the box around it.
        score: from 0 to 1; None: unknown, as of annotations by people.
        source: name of the source.
        caption: what is given with tasks that take a text, such as the caption that a phrase is of.
        polygons: parts of the outline.
        quad: corners of a text in the picture.
        drop: reason for which it is not kept (:mod:`florence_mm.curation.annotation_reasons`); None if it is.
    """

    task: str
    text: str = ''
    box: Box | None = None
    score: float | None = None
    source: str = GIVEN
    caption: str = ''
    polygons: tuple[Polygon, ...] = ()
    quad: Polygon | None = None
    drop: str | None = None

    @property
    def kind(self) -> Kind:
        """Kind of annotation."""
        return kind_of(self.task)

    @property
    def key(self) -> tuple[str, str, str]:
        """What items have in common that say the same of one place: task, caption and text, normalised."""
        return self.task, normalize_text(self.caption), normalize_text(self.text)

    @property
    def place(self) -> tuple[str, str]:
        """What items have in common that may contradict each other: task and caption."""
        return self.key[:2]

    def dropped(self, reason: str | None) -> 'Item':
        """Return it with a reason, unless it has one already."""
        return self if reason is None or self.drop is not None else replace(self, drop=reason)


def kind_of(task: str) -> Kind:
    """Kind of annotation that a task asks for.

    >>> kind_of('caption'), kind_of('region_category'), kind_of('phrase_grounding')
    ('text', 'region', 'phrase')
    """
    spec = find_task(task)
    if spec.takes == 'text':
        return 'phrase'
    return 'text' if spec.answers == 'text' and spec.takes == 'nothing' else 'region'


def checked(item: Item) -> Item:
    """Round an item's numbers as in a line; one that cannot be used gets its reason, and loses what no file can hold.

    Reasons: ``score_not_finite`` (outside 0 to 1 too), ``bad_box`` (outside the picture, empty, not finite, or none
    where the task needs one), ``blank_text`` and ``invalid_text``.
    """
    reason = None
    if not is_encodable(item.text) or not is_encodable(item.caption):
        item, reason = replace(item, text='', caption=''), reasons.INVALID_TEXT
    if item.score is not None and not (is_finite(item.score) and 0 <= item.score <= 1):
        item, reason = replace(item, score=None), reason or reasons.SCORE_NOT_FINITE
    if item.kind != 'text' or item.box is not None:
        item, bad = _with_sound_box(item)
        reason = reason or bad
    if reason is None and _needs_text(item) and is_blank(normalize_text(item.text)):
        reason = reasons.BLANK_TEXT
    if item.score is not None:
        item = replace(item, score=round(float(item.score), DIGITS))
    item = item.dropped(reason)
    if item.drop is None:
        try:
            check_task_row(rows_of('-', [item])[0])
        except ValueError:  # a phrase that is not in its caption, or a mark inside a text
            item = item.dropped(reasons.INVALID_TEXT)
    return item


def _needs_text(item: Item) -> bool:
    answers = TASKS[item.task].answers
    return answers == 'text' or answers.startswith('labelled')


def _with_sound_box(item: Item) -> tuple[Item, str | None]:
    points = [point for part in (*item.polygons, item.quad or ()) for point in part]
    try:
        box = check_box(bounding_box(points) if item.box is None and points else item.box or ())
    except (ValueError, TypeError):
        return replace(item, box=None, polygons=(), quad=None), reasons.BAD_BOX
    rounded = tuple(round(value, DIGITS) for value in box)
    if rounded[0] >= rounded[2] or rounded[1] >= rounded[3]:
        return replace(item, box=None, polygons=(), quad=None), reasons.BAD_BOX
    outlines = [all(0 <= value <= 1 for value in point) for point in points]  # NaN is not
    if not all(outlines):
        return replace(item, box=None, polygons=(), quad=None), reasons.BAD_BOX
    return replace(item, box=rounded), None


# --- from and to the rows of task files -----------------------------------------------------------------------------


def items_of(row: TaskRow, source: str = GIVEN) -> list[Item]:
    """Take a row apart; an answer without any region has no item.

    Args:
        row: a line of a task file.
        source: where it comes from.
    """
    spec = find_task(row.task)
    if spec.answers == 'text':
        return [Item(spec.name, text, row.region, None, source) for text in row.answers]
    found = []
    for region in row.regions:
        same = Item(spec.name, region.text, None, region.score, source, row.text)
        # a region may have more than its task writes
        if spec.answers == 'labelled_quads' and region.quad is not None:
            found.append(replace(same, quad=region.quad, box=bounding_box(region.quad)))
        elif spec.answers == 'polygons' or spec.answers == 'labelled_shapes' and not region.boxes:
            points = [point for part in region.polygons for point in part]
            found.append(replace(same, polygons=region.polygons, box=row.region or bounding_box(points)))
        else:
            found += [replace(same, box=box) for box in region.boxes]
    return found


def rows_of(image: str, items: Iterable[Item]) -> list[TaskRow]:
    """Put items together: a row for each task, text or region that is asked about, in the order of their first items.

    Args:
        image: path of the picture.
        items: items of one picture that are kept.
    """
    grouped: dict[tuple, list[Item]] = {}
    for item in items:
        asked = item.box if TASKS[item.task].takes == 'region' else None
        grouped.setdefault((item.task, item.caption, asked), []).append(item)
    return [_row(image, *key, found) for key, found in grouped.items()]


def _row(image: str, task: str, caption: str, asked: Box | None, items: Sequence[Item]) -> TaskRow:
    if TASKS[task].answers == 'text':
        best = sorted(items, key=lambda item: -(item.score or 0.0))  # of equally good ones the first is the best
        return TaskRow(image, task, region=asked, answers=tuple(dict.fromkeys(item.text for item in best)))
    regions: list[Region] = []
    phrases: dict[str, int] = {}
    for item in items:
        if item.polygons or item.quad:
            regions.append(Region(item.text, (), item.polygons, item.quad, item.score))
        elif task == 'phrase_grounding' and item.text in phrases:  # equal phrases are one, with the boxes of all
            known = regions[phrases[item.text]]
            scores = [score for score in (known.score, item.score) if score is not None]
            score = min(scores) if len(scores) == 2 else None
            regions[phrases[item.text]] = replace(known, boxes=(*known.boxes, item.box), score=score)
        else:
            phrases[item.text] = len(regions)
            regions.append(Region(item.text, (item.box,), score=item.score))
    return TaskRow(image, task, caption, asked, (), tuple(regions))


# --- as JSON ----------------------------------------------------------------------------------------------------------


def item_line(item: Item) -> dict[str, Any]:
    """Return an item in JSON's types, without what is empty."""
    return {name: value for name, value in asdict(item).items() if value not in (None, '', ())}


def parse_item(line: Mapping[str, Any]) -> Item:
    """Return the item that :func:`item_line` wrote."""
    shapes: dict[str, Any] = {}
    if 'box' in line:
        shapes['box'] = tuple(line['box'])
    if 'polygons' in line:
        shapes['polygons'] = tuple(tuple(map(tuple, part)) for part in line['polygons'])
    if 'quad' in line:
        shapes['quad'] = tuple(map(tuple, line['quad']))
    return Item(**{**line, **shapes})
