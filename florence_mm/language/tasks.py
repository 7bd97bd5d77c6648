"""The format of tasks (Florence-2, arXiv 2311.06242): prompts, the texts that answer them, and their parsing.

An answer is a text with coordinates in it: each side of the picture has ``num_bins`` locations, ``<loc_0>`` … at the
left and top. A box is four of them (left, top, right, bottom), behind the text that it belongs to: two cats and a dog
are written ``dog<loc_10><loc_20><loc_500><loc_600>cat<loc_0><loc_0><loc_99><loc_99><loc_200><loc_0><loc_299><loc_99>``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from .marks import POLYGON, POLYGON_END, RESERVED, SEPARATOR, Piece, location_mark, split_marks
from .phrases import in_caption
from .reading import reading_order
from .regions import (
    Region,
    Target,
    bounding_box,
    check_box,
    check_points,
    clockwise,
    from_top_left,
)
from .task_list import TASKS, Task, find_task
from .task_parsing import Parsed, Place, bin_centre, box_of_bins, parse_pieces, plain, without_special

__all__ = ['TASKS', 'Order', 'Parsed', 'Place', 'Task', 'TaskFormat', 'find_task']

#: Order of the regions of an answer.
Order = Literal['reading', 'area', 'given', 'random']

_Bins = tuple[int, ...]


class RandomOrder(Protocol):
    """Source of random orders, such as :class:`numpy.random.Generator`."""

    def permutation(self, x: int) -> Sequence[int]:
        """Return the numbers below ``x`` in random order."""


@dataclass(frozen=True)
class _Written:
    """A region in bins: a text with boxes, a quadrilateral, or the parts of an outline, each a flat tuple."""

    text: str
    shapes: tuple[_Bins, ...]
    kind: Literal['boxes', 'quad', 'polygons']

    @property
    def box(self) -> _Bins:
        return bounding_box([point for shape in self.shapes for point in _pairs(shape)])


class TaskFormat:
    """Writes prompts and answers of tasks, and parses answers.

    Args:
        num_bins: locations per side; 1000 in the public checkpoints.
        order: order of the regions of an answer, and of the boxes of a text. ``'reading'``, by lines from the top, each
            from the left; ``'area'``, the largest first; ``'given'``; ``'random'``, drawn anew for each answer. The
            phrases of a caption keep its order.
        quad_start: first corner of a quadrilateral: ``'top_left'``, the one with the smallest x + y; ``'given'``, the
            first one given, which keeps the direction of texts that stand on their head.

    Raises:
        ValueError: an argument is out of range.

    >>> target = Target(regions=(Region('dog', boxes=((0.1, 0.2, 0.5, 0.6),)),))
    >>> format = TaskFormat()
    >>> format.prompt('detection'), format.write('detection', target)
    ('Locate the objects with category name in the image.', 'dog<loc_100><loc_200><loc_500><loc_600>')
    >>> format.parse('detection', 'dog<loc_100><loc_200><loc_500><loc_600>').target.regions[0].boxes
    ((0.1005, 0.2005, 0.5005, 0.6005),)
    """

    def __init__(
        self, num_bins: int = 1000, order: Order = 'reading', quad_start: Literal['top_left', 'given'] = 'top_left'
    ) -> None:
        if num_bins < 2:
            raise ValueError(f'num_bins is {num_bins}; give at least 2 locations per side')
        if order not in ('reading', 'area', 'given', 'random'):
            raise ValueError(f"order is {order!r}; give 'reading', 'area', 'given' or 'random'")
        if quad_start not in ('top_left', 'given'):
            raise ValueError(f"quad_start is {quad_start!r}; give 'top_left' or 'given'")
        self.num_bins = num_bins
        self.order = order
        self.quad_start = quad_start

    # --- prompts ------------------------------------------------------------------------------------------------------

    def prompt(self, task: str, text: str | None = None, region: Sequence[float] | None = None) -> str:
        """Write the sentence that asks for a task.

        Args:
            task: name or public mark.
            text: the caption, phrase or class names of tasks that take a text.
            region: the box of tasks that take a region, as fractions.

        Raises:
            ValueError: the task is unknown, what it takes is missing, something else is given, the region is outside
                the picture or empty, or the text has a mark in it.
        """
        spec = find_task(task)
        for kind, given in (('text', text), ('region', region)):
            if given is not None and spec.takes != kind:
                takes = 'nothing' if spec.takes == 'nothing' else f'a {spec.takes}'
                raise ValueError(f'{spec.name} takes {takes} and got a {kind}, {given!r}; leave it out')
            if given is None and spec.takes == kind:
                raise ValueError(f'{spec.name} takes a {kind} and got none; give one')
        if text is not None:
            return spec.sentence.replace('{input}', self._text(text, f'the text given with {spec.name}'))
        if region is not None:
            return spec.sentence.replace('{input}', _locations(self._box(region, f'the region given with {spec.name}')))
        return spec.sentence

    # --- answers ------------------------------------------------------------------------------------------------------

    def write(self, task: str, target: Target, rng: RandomOrder | None = None, given: str | None = None) -> str:
        """Write an answer.

        A polygon's corners run clockwise from the one with the smallest x + y, and parts of an outline are in the order
        of these corners. Corners that fall into one location are one; a part of which less than three corners are left
        is left out unless it is the only one.

        Args:
            task: name or public mark.
            target: what the answer says.
            rng: source of the order ``'random'``.
            given: the text given with the task, to check that the phrases of a caption are in it.

        Raises:
            ValueError: the task is unknown, or the target does not answer it: a region lacks what the task writes, is
                outside the picture or empty, a polygon has less than three corners, a text is empty or has a mark in
                it, a phrase is not in the caption, or the order is random without ``rng``.
        """
        spec = find_task(task)
        if spec.answers == 'text':
            return self._answer_text(spec, target)
        regions = self._ordered(spec, self._binned(spec, target, given), rng)
        return ''.join(self._write_region(spec, region, len(regions)) for region in regions)

    def quantised(self, task: str, target: Target, rng: RandomOrder | None = None) -> Target:
        """Return a target as parsing its written answer gives it: in the order of the answer, at the centres of bins.

        A box both of whose edges lie in one bin has them at the quarters of that bin, and is not empty.

        Raises:
            ValueError: see :meth:`write`.
        """
        spec = find_task(task)
        if spec.answers == 'text':
            return Target(self._answer_text(spec, target))
        return Target(regions=tuple(map(self._region, self._ordered(spec, self._binned(spec, target), rng))))

    def parse(self, task: str, text: str | Sequence[Piece], given: str | None = None) -> Parsed:
        """Parse what a model wrote; what does not parse is left out, with a sentence about it.

        Args:
            task: name or public mark.
            text: what was written; or its pieces, see :func:`~florence_mm.language.marks.split_marks`.
            given: the text given with the task; a phrase that is not in its caption is a fault, but kept.

        Raises:
            ValueError: the task is unknown.
        """
        spec = find_task(task)
        pieces = split_marks(without_special(text)) if isinstance(text, str) else text
        parsed = parse_pieces(spec, pieces, self.num_bins)
        return parsed if given is None else check_phrases(parsed, spec, given)

    # --- from fractions to bins ---------------------------------------------------------------------------------------

    def bin_of(self, fraction: float) -> int:
        """Bin of a coordinate; one that lies on the border of two bins to a billionth is in the upper one."""
        return min(int(fraction * self.num_bins + 1e-9), self.num_bins - 1)

    def _box(self, box: Sequence[float], where: str) -> _Bins:
        return tuple(map(self.bin_of, check_box(box, where)))

    def _corners(self, points: Sequence[Sequence[float]], where: str) -> list[tuple[int, int]]:
        return [(self.bin_of(x), self.bin_of(y)) for x, y in check_points(points, where)]

    def _quad(self, points: Sequence[Sequence[float]], where: str) -> _Bins:
        if len(points) != 4:
            raise ValueError(f'{where} has {len(points)} corners; give 4')
        corners = clockwise(self._corners(points, where))
        return _flat(from_top_left(corners) if self.quad_start == 'top_left' else corners)

    def _outline(self, parts: Sequence[Sequence[Sequence[float]]], where: str) -> tuple[_Bins, ...]:
        cleaned = [_distinct(self._corners(part, where)) for part in parts]
        # parts smaller than a bin; the only part is kept, with its last corner repeated
        kept = [part for part in cleaned if len(part) >= 3] or [max(cleaned, key=len)]
        turned = [from_top_left(clockwise(part)) for part in kept]
        turned = [[*part, *[part[-1]] * (3 - len(part))] for part in turned]
        return tuple(_flat(part) for part in sorted(turned, key=lambda part: (sum(part[0]), part[0][1], part)))

    def _binned(self, spec: Task, target: Target, given: str | None = None) -> list[_Written]:
        """Check the regions of a target, and convert them to bins."""
        if target.text:
            raise ValueError(f'{spec.name} is answered by regions and got the text {target.text!r}; give regions alone')
        labelled, written = spec.answers.startswith('labelled'), []
        for index, region in enumerate(target.regions):
            where = f'region {index} ({region.text!r})' if region.text else f'region {index}'
            text = self._text(region.text, f'the text of {where}') if labelled else ''
            if given is not None and spec.name == 'phrase_grounding' and not in_caption(text, given):
                raise ValueError(f'the phrase {text!r} is not in the caption {given!r}; give phrases of the caption')
            boxes = tuple(self._box(box, f'a box of {where}') for box in region.boxes)
            if spec.answers == 'boxes':
                written += [_Written('', (box,), 'boxes') for box in boxes]
            elif spec.answers == 'labelled_quads':
                quads = () if region.quad is None else (self._quad(region.quad, f'the quadrilateral of {where}'),)
                written.append(_Written(text, quads, 'quad'))
            elif spec.answers == 'polygons' or spec.answers == 'labelled_shapes' and not boxes and region.polygons:
                parts = self._outline(region.polygons, f'a polygon of {where}') if region.polygons else ()
                written.append(_Written(text, parts, 'polygons'))
            else:
                written.append(_Written(text, boxes, 'boxes'))
            if not written or not written[-1].shapes:
                nouns = {'labelled_quads': 'quadrilateral', 'polygons': 'polygon'}
                raise ValueError(f'{where} has no {nouns.get(spec.answers, "box")}, which {spec.name} writes; give one')
        return written

    def _answer_text(self, spec: Task, target: Target) -> str:
        if target.regions:
            raise ValueError(
                f'{spec.name} is answered by a text and got {len(target.regions)} regions; give a text alone'
            )
        return self._text(target.text, f'the answer to {spec.name}')

    @staticmethod
    def _text(text: str, where: str) -> str:
        text, mark = plain(text), RESERVED.search(plain(text))
        if mark:
            raise ValueError(f'{where}, {text!r}, has the mark {mark[0]} in it; take it out')
        if not text:
            raise ValueError(f'{where} is empty; give at least one word')
        return text

    # --- order --------------------------------------------------------------------------------------------------------

    def _ordered(self, spec: Task, regions: list[_Written], rng: RandomOrder | None) -> list[_Written]:
        """Order regions, and the boxes of each, as ``order`` says; phrases keep the order of their caption."""
        if self.order == 'random' and rng is None:
            raise ValueError("order='random' needs a source of random numbers; give rng")
        inner = [
            _Written(x.text, self._sorted(x.shapes, x.shapes, rng), x.kind) if x.kind == 'boxes' else x for x in regions
        ]
        if spec.name == 'phrase_grounding':
            return inner
        return list(self._sorted(inner, [region.box for region in inner], rng))

    def _sorted(self, items: Sequence, boxes: Sequence[_Bins], rng: RandomOrder | None) -> tuple:
        places: Sequence[int] = range(len(items))
        if self.order == 'random':
            assert rng is not None
            places = rng.permutation(len(items))
        elif self.order == 'area':
            places = sorted(places, key=lambda i: (-_area(boxes[i]), boxes[i][1], boxes[i], str(items[i])))
        elif self.order == 'reading':
            places = reading_order(boxes, [str(item) for item in items])
        return tuple(items[place] for place in places)

    # --- from bins to texts and fractions -----------------------------------------------------------------------------

    @staticmethod
    def _write_region(spec: Task, region: _Written, count: int) -> str:
        if region.kind != 'polygons':
            return region.text + ''.join(map(_locations, region.shapes))
        outline = SEPARATOR.join(map(_locations, region.shapes))
        bare = spec.answers == 'polygons' and count == 1
        return region.text + (outline if bare else f'{POLYGON}{outline}{POLYGON_END}')

    def _region(self, region: _Written) -> Region:
        if region.kind == 'boxes':
            return Region(region.text, boxes=tuple(box_of_bins(shape, self.num_bins) for shape in region.shapes))
        shapes = [[bin_centre(number, self.num_bins) for number in shape] for shape in region.shapes]
        points = tuple(tuple(_pairs(shape)) for shape in shapes)
        return Region(region.text, quad=points[0]) if region.kind == 'quad' else Region(region.text, polygons=points)


def check_phrases(parsed: Parsed, task: Task, given: str) -> Parsed:
    """Add a fault for each phrase of a grounded caption that is not in it."""
    if task.name != 'phrase_grounding':
        return parsed
    missing = [region.text for region in parsed.target.regions if not in_caption(region.text, given)]
    faults = tuple(f'the phrase {phrase!r} is not in the caption {given!r}' for phrase in missing)
    return Parsed(parsed.target, parsed.faults + faults, parsed.text, parsed.places)


def _area(box: _Bins) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _distinct(points: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Corners without those equal to the one before them; the first follows the last."""
    kept = [point for place, point in enumerate(points) if point != points[place - 1]]
    return kept or [points[0]]


def _flat(points: Sequence[tuple[int, int]]) -> _Bins:
    return tuple(number for point in points for number in point)


def _pairs(numbers: Sequence) -> list[tuple]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _locations(bins: _Bins) -> str:
    return ''.join(map(location_mark, bins))
