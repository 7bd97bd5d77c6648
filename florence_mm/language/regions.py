"""Regions of a picture with their texts, as fractions of the picture's width and height: what a task's answer says.

Coordinates run from 0 at the left and top edge to 1 at the right and bottom edge, so that resizing keeps them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

#: x and y.
Point = tuple[float, float]

#: Left, top, right and bottom edge: ``(x0, y0, x1, y1)``.
Box = tuple[float, float, float, float]

#: Corners in order; the last one is joined to the first.
Polygon = tuple[Point, ...]

#: Coordinates this far outside the picture count as rounding errors.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Region:
    """A region of a picture: a text with its boxes, its outline or its quadrilateral.

    Attributes:
        text: class name, phrase, description or text in the picture; '' where a task writes none.
        boxes: boxes of the text; several if it names several objects.
        polygons: parts of the outline of one object.
        quad: four corners around a text in the picture, clockwise from its top left corner.
        score: from 0 to 1, of a prediction.
    """

    text: str = ''
    boxes: tuple[Box, ...] = ()
    polygons: tuple[Polygon, ...] = ()
    quad: Polygon | None = None
    score: float | None = None


@dataclass(frozen=True)
class Target:
    """What the answer to a task says.

    Attributes:
        text: the answer of tasks that are answered by one text.
        regions: the answer of tasks that are answered by regions.
    """

    text: str = ''
    regions: tuple[Region, ...] = ()


def check_box(box: Sequence[float], where: str = 'the box') -> Box:
    """Return a box as four floats inside the picture.

    Args:
        box: ``x0, y0, x1, y1`` as fractions; up to :data:`ROUNDING` outside the picture is clipped.
        where: how messages name the box.

    Raises:
        ValueError: it has not four finite numbers, is empty, or is outside the picture.
    """
    if len(box) != 4:
        raise ValueError(f'{where} has {len(box)} numbers; give x0, y0, x1, y1 as fractions of the picture')
    x0, y0, x1, y1 = (_fraction(value, where, box) for value in box)
    if x0 >= x1 or y0 >= y1:
        raise ValueError(f'{where} {_shown(box)} is empty; give x0 < x1 and y0 < y1')
    return x0, y0, x1, y1


def check_points(points: Sequence[Sequence[float]], where: str = 'the polygon') -> Polygon:
    """Return a polygon as points inside the picture.

    Args:
        points: ``(x, y)`` of at least three corners as fractions; see :func:`check_box` for the edge.
        where: how messages name the polygon.

    Raises:
        ValueError: there are fewer than three points, a point has not two finite numbers or is outside the picture.
    """
    if len(points) < 3:
        raise ValueError(f'{where} has {len(points)} points; a polygon needs at least 3')
    for point in points:
        if len(point) != 2:
            raise ValueError(f'{where} has a point of {len(point)} numbers; give x and y as fractions of the picture')
    return tuple((_fraction(x, where, (x, y)), _fraction(y, where, (x, y))) for x, y in points)


def clip_box(box: Sequence[float]) -> Box | None:
    """Cut a box at the picture's edges; None if nothing of it is inside.

    >>> clip_box((-0.25, 0.5, 0.5, 1.5)), clip_box((1.0, 0.0, 1.5, 1.0))
    ((0.0, 0.5, 0.5, 1.0), None)
    """
    x0, y0, x1, y1 = (min(max(float(value), 0.0), 1.0) for value in box)
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def bounding_box(points: Sequence[Sequence[float]]) -> Box:
    """Box around points.

    >>> bounding_box(((0.5, 0.25), (0.75, 0.5), (0.25, 0.5)))
    (0.25, 0.25, 0.75, 0.5)
    """
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def clockwise(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Order the corners of a polygon clockwise on the screen, from the same first corner.

    >>> clockwise([(0, 0), (0, 1), (1, 1), (1, 0)])
    [(0, 0), (1, 0), (1, 1), (0, 1)]
    """
    following = [*points[1:], points[0]]
    # the y axis points down, so that a positive area runs clockwise on the screen
    area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(points, following, strict=True))
    return [points[0], *points[:0:-1]] if area < 0 else list(points)


def from_top_left(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Rotate the corners of a polygon so that the one with the smallest x + y is first, of several the highest.

    >>> from_top_left([(1, 0), (1, 1), (0, 1), (0, 0)])
    [(0, 0), (1, 0), (1, 1), (0, 1)]
    """
    first = min(range(len(points)), key=lambda i: (points[i][0] + points[i][1], points[i][1]))
    return [*points[first:], *points[:first]]


def _fraction(value: float, where: str, numbers: Sequence[float]) -> float:
    if not -ROUNDING <= value <= 1 + ROUNDING:  # so that NaN is found too
        raise ValueError(
            f'{where} {_shown(numbers)} is outside the picture; give fractions of its width and height from 0 to 1, '
            'or clip it'
        )
    return min(max(float(value), 0.0), 1.0)


def _shown(numbers: Sequence[float]) -> str:
    return f'({", ".join(f"{value:.6g}" for value in numbers)})'
