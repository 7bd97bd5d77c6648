"""What readers of region annotations yield: a picture with its regions and texts, in fractions of its size."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from florence_mm.errors import shown
from florence_mm.language.regions import Box, Polygon, Region
from florence_mm.utils.numbers import is_finite

from .coco import clip_box

# sizes and positions are rounded independently, so up to so many pixels outside do not count
_ROUNDING = 0.01

_Entry = TypeVar('_Entry')


@dataclass(frozen=True)
class AnnotatedPicture:
    """A picture with what a file says of it.

    Attributes:
        image: path of the picture, relative to the folder of the pictures.
        where: the entry in messages, such as ``'instances.json, image 7'``.
        regions: places with their class, description, phrase or word.
        texts: texts about the whole picture.
        phrases: captions, each with the regions of its phrases.
        clipped: number of boxes and polygons that reached out of the picture.
        faults: a sentence for each unusable annotation, which is left out of ``regions`` and ``phrases``.
    """

    image: str
    where: str
    regions: tuple[Region, ...] = ()
    texts: tuple[str, ...] = ()
    phrases: tuple[tuple[str, tuple[Region, ...]], ...] = ()
    clipped: int = 0
    faults: tuple[str, ...] = ()


class PixelPlaces:
    """Converts places in pixels of a picture to fractions; what reaches out of the picture is clipped and counted.

    Args:
        width: of the picture, in pixels.
        height: of the picture, in pixels.

    Raises:
        ValueError: the size is none.
    """

    def __init__(self, width: Any, height: Any) -> None:
        if not all(is_finite(side) and side > 0 for side in (width, height)):
            raise ValueError(f'width {shown(width)} and height {shown(height)}; expected the size in pixels')
        self.width, self.height = width, height
        self.clipped = 0

    @property
    def _size(self) -> str:
        return f'the picture of {self.width:g}x{self.height:g} pixels'

    def box(self, box: Any, what: str) -> Box:
        """Convert ``x, y, width, height``.

        Args:
            box: four numbers.
            what: the box in messages, such as ``'annotation 7'``.

        Raises:
            ValueError: it is no box, or has no area in the picture; the message is only the reason, without file.
        """
        if not isinstance(box, Sequence) or len(box) != 4 or not all(map(is_finite, box)):
            raise ValueError(f'{what} has the box {shown(box)}; expected four finite numbers x, y, width, height')
        corners, problem = clip_box(list(box), self.width, self.height)
        if problem in ('outside', 'no area'):
            found = 'no area' if problem == 'no area' else f'no area inside {self._size}'
            raise ValueError(f'{what} has the box {shown(list(box))}, which has {found}; correct or remove it')
        self.clipped += problem is not None
        x0, y0, x1, y1 = corners
        return x0 / self.width, y0 / self.height, x1 / self.width, y1 / self.height

    def polygon(self, values: Any, what: str) -> Polygon:
        """Convert ``x, y, x, y, ...``.

        Args:
            values: an even number of numbers, at least six.
            what: the polygon in messages.

        Raises:
            ValueError: it is no polygon, or lies outside the picture; the message is only the reason, without file.
        """
        if not isinstance(values, Sequence) or isinstance(values, str) or not all(map(is_finite, values)):
            raise ValueError(f'{what} has the polygon {shown(values)}; expected finite numbers x, y, x, y, ...')
        if len(values) < 6 or len(values) % 2:
            raise ValueError(
                f'{what} has a polygon of {len(values)} numbers; expected x and y of at least three corners'
            )
        points = list(zip(values[::2], values[1::2], strict=True))
        inside = [(min(max(x, 0), self.width), min(max(y, 0), self.height)) for x, y in points]
        moved = max(max(abs(x - a), abs(y - b)) for (x, y), (a, b) in zip(points, inside, strict=True))
        xs, ys = zip(*inside, strict=True)
        if moved > _ROUNDING and (min(xs) == max(xs) or min(ys) == max(ys)):
            raise ValueError(f'{what} has a polygon that lies outside {self._size}; correct or remove it')
        self.clipped += moved > _ROUNDING
        return tuple((x / self.width, y / self.height) for x, y in inside)


def read_each(
    entries: Iterable[_Entry], read: Callable[[_Entry], Iterable[Region]]
) -> tuple[tuple[Region, ...], tuple[str, ...]]:
    """Read the annotations of a picture, so that one that is unusable does not cost the others.

    Args:
        entries: the annotations.
        read: gives the regions of one; raises ValueError, whose message is only the reason, if it is unusable.

    Returns:
        tuple: the regions, and the messages of those that are unusable.
    """
    regions: list[Region] = []
    faults: list[str] = []
    for entry in entries:
        try:
            regions += read(entry)
        except ValueError as error:
            faults.append(str(error))
    return tuple(regions), tuple(faults)
