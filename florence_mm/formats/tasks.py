"""Task files: one picture, one task and its answer a line, for any task of Florence-2 (docs/data.md).

A line is a JSON object with ``image``, ``task``, what is given with the task (``text`` or ``region``), and the answer:
``answer``, or several equally good ``answers``, of tasks that are answered by a text, ``regions`` of the others. Boxes
and points are fractions of the picture's width and height.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from florence_mm.errors import shown
from florence_mm.language.regions import Box, Polygon, Region, Target, check_box, check_points
from florence_mm.language.tasks import TaskFormat, find_task
from florence_mm.utils.nearest import did_you_mean
from florence_mm.utils.numbers import is_finite

from .captions import checked_caption, checked_path

#: Keys of a line; others are kept as ``extra``.
KEYS = ('image', 'task', 'text', 'region', 'answer', 'answers', 'regions')
_REGION_KEYS = ('text', 'boxes', 'polygons', 'quad', 'score')
# with which rows are checked
_FORMAT = TaskFormat(order='given')
#: Of a coordinate in a file: a hundredth of a pixel in a picture of a thousand.
DIGITS = 5


@dataclass(frozen=True)
class TaskRow:
    """A picture, a task and its answer.

    Attributes:
        image: path of the picture.
        task: name of the task, a key of :data:`florence_mm.language.task_list.TASKS`.
        text: what is given with a task that takes a text; '' otherwise.
        region: what is given with a task that takes a region.
        answers: equally good answers of a task that is answered by a text.
        regions: the answer of the other tasks; may be empty, where there is nothing to be found.
        extra: other keys of the line.
    """

    image: str
    task: str
    text: str = ''
    region: Box | None = None
    answers: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    extra: dict = field(default_factory=dict)

    def targets(self) -> list[Target]:
        """Return the equally good answers; one where regions are the answer."""
        if find_task(self.task).answers == 'text':
            return [Target(text) for text in self.answers or ('',)]
        return [Target(regions=self.regions)]


def parse_task_row(raw: Mapping[str, Any]) -> TaskRow:
    """Check the object of a line.

    Raises:
        ValueError: it is no picture with a task and its answer; the message is only the reason, without file or line.

    >>> dogs = [{'text': 'dog', 'boxes': [[0, 0, 0.5, 1]]}]
    >>> parse_task_row({'image': '1.jpg', 'task': '<OD>', 'regions': dogs}).regions
    (Region(text='dog', boxes=((0.0, 0.0, 0.5, 1.0),), polygons=(), quad=None, score=None),)
    """
    for key in ('image', 'task'):
        if key not in raw:
            raise ValueError(f'no {key!r}; a line needs the path of a picture and the name of a task')
    if not isinstance(raw['task'], str):
        raise ValueError(f'the task {shown(raw["task"])} is not a text; give the name of a task')
    task = find_task(raw['task'])
    answers, regions = (), ()
    wanted = ('answer', 'answers') if task.answers == 'text' else ('regions',)
    given = [key for key in ('answer', 'answers', 'regions') if key in raw]
    if len(given) != 1 or given[0] not in wanted:
        raise ValueError(
            f'a line of the task {task.name} has {" and ".join(map(repr, given)) or "no answer"}; give '
            f'{" or ".join(map(repr, wanted))}'
        )
    if given[0] == 'answer':
        answers = (checked_caption(raw['answer'], 'answer'),)
    elif given[0] == 'answers':
        answers = tuple(checked_caption(text, 'answer') for text in _list(raw['answers'], '`answers`'))
        if not answers:
            raise ValueError('`answers` is an empty list; give at least one')
    else:
        regions = _regions(raw['regions'])
    row = TaskRow(
        checked_path(raw['image']),
        task.name,
        checked_caption(raw['text']) if 'text' in raw else '',
        check_box(_numbers(raw['region'], '`region`'), '`region`') if 'region' in raw else None,
        answers,
        regions,
        {key: value for key, value in raw.items() if key not in KEYS},
    )
    check_task_row(row)
    return row


def check_task_row(row: TaskRow) -> None:
    """Check that a row has what its task takes and is answered by.

    Raises:
        ValueError: it has not; the message is only the reason, without file or line.
    """
    task = find_task(row.task)
    if row.answers if task.answers != 'text' else row.regions:
        kind, other = ('text', 'regions') if task.answers == 'text' else ('regions', 'a text')
        raise ValueError(f'{task.name} is answered by {kind}, and the row has {other}')
    _FORMAT.prompt(row.task, row.text or None, row.region)
    for target in row.targets():
        _FORMAT.write(row.task, target, given=row.text or None)


def _regions(raw: Any) -> tuple[Region, ...]:
    if not isinstance(raw, list):
        raise ValueError(f'`regions` must be a list of objects, but is {shown(raw)}')
    return tuple(_region(item, f'regions[{number}]') for number, item in enumerate(raw))


def _region(raw: Any, where: str) -> Region:
    if not isinstance(raw, Mapping):
        raise ValueError(f'{where} must be an object with {", ".join(_REGION_KEYS)}, but is {shown(raw)}')
    for key in raw:
        if key not in _REGION_KEYS:
            hint = did_you_mean(str(key), _REGION_KEYS, f'; the keys are {", ".join(_REGION_KEYS)}')
            raise ValueError(f'{where} has the key {key!r}{hint}')
    boxes = [
        check_box(_numbers(box, f'{where}.boxes[{i}]'), f'{where}.boxes[{i}]')
        for i, box in enumerate(_list(raw.get('boxes', []), f'{where}.boxes'))
    ]
    polygons = [
        _points(points, f'{where}.polygons[{i}]')
        for i, points in enumerate(_list(raw.get('polygons', []), f'{where}.polygons'))
    ]
    quad = None
    if raw.get('quad') is not None:
        quad = _points(raw['quad'], f'{where}.quad')
        if len(quad) != 4:
            raise ValueError(f'{where}.quad has {len(quad)} points; give four, clockwise from the top left of the text')
    score = raw.get('score')
    if score is not None and not (is_finite(score) and 0 <= score <= 1):
        raise ValueError(f'{where}.score is {shown(score)}; expected a number from 0 to 1')
    text = checked_caption(raw['text'], f'text of {where}') if 'text' in raw else ''
    return Region(text, tuple(boxes), tuple(polygons), quad, score)


def _points(raw: Any, where: str) -> Polygon:
    return check_points([_numbers(point, where) for point in _list(raw, where)], where)


def _list(raw: Any, where: str) -> list:
    if not isinstance(raw, list):
        raise ValueError(f'{where} must be a list, but is {shown(raw)}')
    return raw


def _numbers(raw: Any, where: str) -> list[float]:
    if not isinstance(raw, list) or not all(map(is_finite, raw)):
        raise ValueError(f'{where} must be a list of finite numbers, but is {shown(raw)}')
    return raw


def task_line(row: TaskRow) -> dict[str, Any]:
    """Make the object of a line, which :func:`parse_task_row` reads; coordinates are rounded to five digits.

    Args:
        row: what the line says; it is checked.

    Raises:
        ValueError: see :func:`check_task_row`; or a box is empty when it is rounded.

    >>> task_line(TaskRow('1.jpg', 'region_category', region=(0.0, 0.0, 0.5, 1.0), answers=('dog',)))
    {'image': '1.jpg', 'task': 'region_category', 'region': [0.0, 0.0, 0.5, 1.0], 'answer': 'dog'}
    """
    check_task_row(row)
    line: dict[str, Any] = {'image': row.image, 'task': row.task}
    if row.text:
        line['text'] = row.text
    if row.region is not None:
        line['region'] = _rounded(row.region)
    if len(row.answers) == 1:
        line['answer'] = row.answers[0]
    elif row.answers:
        line['answers'] = list(row.answers)
    else:
        line['regions'] = [_region_line(region) for region in row.regions]
    line = {**line, **row.extra}
    parse_task_row(line)  # a line that is written can be read
    return line


def _region_line(region: Region) -> dict[str, Any]:
    line = {
        'text': region.text,
        'boxes': [_rounded(box) for box in region.boxes],
        'polygons': [_pairs(polygon) for polygon in region.polygons],
        'quad': _pairs(region.quad or ()),
    }
    line = {key: value for key, value in line.items() if value}
    return line if region.score is None else {**line, 'score': round(region.score, DIGITS)}


def _pairs(points: Iterable[Sequence[float]]) -> list[list[float]]:
    return [_rounded(point) for point in points]


def _rounded(numbers: Iterable[float]) -> list[float]:
    return [round(float(number), DIGITS) for number in numbers]
