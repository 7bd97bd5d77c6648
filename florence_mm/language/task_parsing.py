"""Parsing of what a model wrote in answer to a task: regions, and one sentence for each part that does not parse."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .marks import POLYGON, POLYGON_END, SEPARATOR, SPECIAL, Piece
from .regions import Box, Polygon, Region, Target
from .task_list import Task


@dataclass(frozen=True)
class Place:
    """Pieces of an answer that a region was read from, by their indices.

    Attributes:
        text: those of its text.
        shapes: those of each box, quadrilateral or outline, in the order of the region.
    """

    text: tuple[int, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Parsed:
    """An answer that was parsed.

    Attributes:
        target: what the answer says, without the parts that do not parse.
        faults: one sentence for each part that does not parse.
        text: what was written.
        places: where each region of ``target`` was read.
    """

    target: Target
    faults: tuple[str, ...] = ()
    text: str = ''
    places: tuple[Place, ...] = ()


def without_special(text: str) -> str:
    """A written text without the marks of its start, end and padding.

    >>> without_special('</s><s>a dog</s><pad>')
    'a dog'
    """
    for mark in SPECIAL:
        text = text.replace(mark, '')
    return text


def parse_pieces(task: Task, pieces: Sequence[Piece], num_bins: int) -> Parsed:
    """Parse an answer that is split at its marks.

    Args:
        task: the task that it answers.
        pieces: see :func:`~florence_mm.language.marks.split_marks`; two texts in a row are one.
        num_bins: number of locations per side.
    """
    written = ''.join(piece.text for piece in pieces)
    parser = _Parser(task, num_bins)
    if task.answers == 'text':
        target, places = parser.text(pieces), ()
    else:
        regions = list(parser.regions(pieces))
        target = Target(regions=tuple(region for region, _ in regions))
        places = tuple(place for _, place in regions)
        if not regions and written.strip():
            parser.faults.append(f'the answer {written!r} has no region that answers {task.name}')
    return Parsed(target, tuple(parser.faults), written, places)


@dataclass
class _Group:
    """A text, or None, and the numbered locations and marks after it."""

    text: str | None
    text_places: list[int]
    body: list[tuple[int, Piece]]

    @property
    def name(self) -> str:
        return 'the answer' if self.text is None else f'the text {self.text!r}'


class _Parser:
    """Parser of one answer.

    Attributes:
        faults: sentences about what did not parse so far.
    """

    def __init__(self, task: Task, num_bins: int) -> None:
        self.task = task
        self.num_bins = num_bins
        self.faults: list[str] = []

    def text(self, pieces: Sequence[Piece]) -> Target:
        """Read a text; marks in it are left out."""
        marks = [piece.text for piece in pieces if piece.kind != 'text']
        if marks:
            self.faults.append(f'{self.task.name} is answered by a text alone; {"".join(marks)} in it is left out')
        return Target(plain(' '.join(piece.text for piece in pieces if piece.kind == 'text')))

    def regions(self, pieces: Sequence[Piece]):
        """Read regions, each with its place."""
        labelled = self.task.answers.startswith('labelled')
        for group in self._groups(pieces, labelled):
            if labelled and group.text is None:
                self.faults.append(f'{_marks(group.body)} has no text before it and is left out')
                continue
            yield from self._read(group)

    def _read(self, group: _Group):
        answers = self.task.answers
        if answers == 'labelled_shapes':
            outlined = any(piece.kind == 'mark' for _, piece in group.body)
            answers = 'polygons' if outlined else 'labelled_boxes'
        text, text_places = group.text or '', tuple(group.text_places)
        if answers == 'polygons':
            for parts, places in self._outlines(group):
                yield Region(text, polygons=parts), Place(text_places, (places,))
            return
        read: Callable = self._quads if answers == 'labelled_quads' else self._boxes
        shapes = list(read(group))
        if not shapes and group.text is not None:
            noun = 'quadrilateral' if answers == 'labelled_quads' else 'box'
            self.faults.append(f'{group.name} has no {noun} and is left out')
        places = tuple(place for _, place in shapes)
        if answers == 'labelled_quads':
            if shapes:
                yield Region(text, quad=shapes[0][0]), Place(text_places, places[:1])
        elif answers == 'labelled_boxes':
            if shapes:
                yield Region(text, boxes=tuple(box for box, _ in shapes)), Place(text_places, places)
        else:
            for box, place in shapes:  # proposals have no text, so that each is a region
                yield Region(boxes=(box,)), Place((), (place,))

    def _groups(self, pieces: Sequence[Piece], labelled: bool) -> list[_Group]:
        """Group locations and the marks of outlines by the text before them."""
        known = (POLYGON, POLYGON_END, SEPARATOR) if self.task.answers in ('polygons', 'labelled_shapes') else ()
        groups: list[_Group] = []
        for place, piece in enumerate(pieces):
            if piece.kind == 'text' and not labelled:
                self.faults.append(
                    f'{self.task.name} is answered by locations alone; the text {plain(piece.text)!r} is left out'
                )
            elif piece.kind == 'text':
                if groups and groups[-1].text is not None and not groups[-1].body:
                    groups[-1].text = plain(f'{groups[-1].text} {piece.text}')
                    groups[-1].text_places.append(place)
                else:
                    groups.append(_Group(plain(piece.text), [place], []))
            elif piece.kind == 'mark' and piece.text not in known:
                self.faults.append(f'{piece.text} is no part of an answer to {self.task.name} and is left out')
            elif piece.kind == 'location' and piece.bin >= self.num_bins:
                self.faults.append(f'{piece.text} is beyond the {self.num_bins} locations and is left out')
            else:
                if not groups:
                    groups.append(_Group(None, [], []))
                groups[-1].body.append((place, piece))
        return groups

    def _boxes(self, group: _Group):
        """Read boxes of four locations each, with their places."""
        body = group.body
        if len(body) % 4:
            rest = body[len(body) - len(body) % 4 :]
            self.faults.append(f'{_marks(rest)} behind {group.name} is not a box of 4 locations and is left out')
        for start in range(0, len(body) - 3, 4):
            four = body[start : start + 4]
            x0, y0, x1, y1 = (piece.bin for _, piece in four)
            if x1 < x0 or y1 < y0:
                self.faults.append(f'the box {_marks(four)} ends before it begins and is left out')
                continue
            yield box_of_bins((x0, y0, x1, y1), self.num_bins), tuple(place for place, _ in four)

    def _quads(self, group: _Group):
        """Read the quadrilateral of eight locations behind a text, with its place."""
        body = group.body
        rest = body[8:] if len(body) >= 8 else body
        if rest:
            self.faults.append(
                f'{_marks(rest)} behind {group.name} is not its quadrilateral of 8 locations and is left out'
            )
        if len(body) >= 8:
            yield self._points(body[:8]), tuple(place for place, _ in body[:8])

    def _outlines(self, group: _Group):
        """Read outlines: the parts of each object, with their places."""
        for body in self._objects(group):
            parts, places = [], []
            for part in _split(body, SEPARATOR):
                if len(part) % 2:
                    self.faults.append(
                        f'{part[-1][1].text}, the last of {len(part)} locations, has no y and is left out'
                    )
                    part = part[:-1]
                if len(part) < 6:
                    if part:
                        self.faults.append(
                            f'the polygon {_marks(part)} has {len(part) // 2} points, less than 3, and is left out'
                        )
                    continue
                parts.append(self._points(part))
                places += [place for place, _ in part]
            if parts:
                yield tuple(parts), tuple(places)

    def _objects(self, group: _Group) -> list[list[tuple[int, Piece]]]:
        """Split what stands behind a text at ``<poly>`` and ``</poly>``; without these it is one object."""
        if not any(piece.text in (POLYGON, POLYGON_END) for _, piece in group.body):
            return [group.body]
        objects, outside, inside = [], [], False
        for place, piece in group.body:
            if piece.text == POLYGON:
                objects.append([])
                inside = True
            elif piece.text == POLYGON_END:
                inside = False
            else:
                (objects[-1] if inside else outside).append((place, piece))
        if outside:
            self.faults.append(f'{_marks(outside)} is outside {POLYGON} and {POLYGON_END} and is left out')
        return objects

    def _points(self, pieces: Sequence[tuple[int, Piece]]) -> Polygon:
        numbers = [bin_centre(piece.bin, self.num_bins) for _, piece in pieces]
        return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def bin_centre(number: int, num_bins: int) -> float:
    """Centre of a bin as a fraction of the picture's side.

    >>> bin_centre(0, 4), bin_centre(3, 4)
    (0.125, 0.875)
    """
    return (number + 0.5) / num_bins


def box_of_bins(bins: Sequence[int], num_bins: int) -> Box:
    """Box as fractions from the bins of its edges, which lie at the centres of these.

    Two edges in one bin lie at its quarters, so that no box is empty.

    >>> box_of_bins((0, 1, 2, 1), 4)
    (0.125, 0.3125, 0.625, 0.4375)
    """
    x0, y0, x1, y1 = bins
    quarters = [0.25 if first == last else 0.0 for first, last in ((x0, x1), (y0, y1))]
    shifts = (-quarters[0], -quarters[1], *quarters)
    return tuple((number + 0.5 + shift) / num_bins for number, shift in zip(bins, shifts, strict=True))


def plain(text: str) -> str:
    """A text with runs of white space as one space, and none at its ends."""
    return ' '.join(text.split())


def _marks(pieces: Sequence[tuple[int, Piece]]) -> str:
    return ''.join(piece.text for _, piece in pieces)


def _split(body: Sequence[tuple[int, Piece]], mark: str) -> list[list[tuple[int, Piece]]]:
    parts: list[list[tuple[int, Piece]]] = [[]]
    for item in body:
        if item[1].text == mark:
            parts.append([])
        else:
            parts[-1].append(item)
    return parts
