"""Unambiguous facts about the embedded scenes of digits, for questions and captions."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from florence_mm.errors import DataError
from florence_mm.formats.coco import read_coco_file
from florence_mm.language.prompts import get_class_names
from florence_mm.utils.digests import sha256_of

# HSV hues 0, 60, ..., 300 degrees
COLOURS = ('red', 'yellow', 'green', 'cyan', 'blue', 'magenta')
# a colour has a name if its hue is this close to one of these and its saturation at least this high
MAX_HUE_OFF = 18.0  # degrees
MIN_SATURATION = 0.5
# margin of the leftmost and rightmost digit, in widths of the image, and of the largest, as a factor
SIDE_MARGIN = 0.05
SIZE_MARGIN = 1.15


@dataclass(frozen=True)
class SceneDigit:
    """A digit of a scene.

    Attributes:
        label (int): 0 to 9.
        box (tuple): ``x, y, width, height`` in pixels.
        colour (str | None): One of :data:`COLOURS`; None if the ink is between two of them or pale.
        outline (tuple): Polygons of the visible ink, each of corners ``x, y`` in pixels; empty if the scenes were
            written without outlines.
        quad (tuple): Corners ``x, y`` of the rotated rectangle, clockwise from its top left; empty as above.
        order (int): Place in reading order, from 0; -1 as above.
    """

    label: int
    box: tuple[float, float, float, float]
    colour: str | None
    outline: tuple[tuple[tuple[float, float], ...], ...] = ()
    quad: tuple[tuple[float, float], ...] = ()
    order: int = -1

    @property
    def name(self) -> str:
        """Name of the digit, 'zero' to 'nine'."""
        return get_class_names('digits')[self.label]

    @property
    def centre(self) -> float:
        """Column of the centre of the box."""
        return self.box[0] + self.box[2] / 2


@dataclass(frozen=True)
class Scene:
    """An image and its digits.

    Attributes:
        image_id (int): The number in the image's file name.
        file_name (str): Relative to the folder of its split.
        width (int): Width in pixels.
        height (int): Height in pixels.
        digits (tuple[SceneDigit, ...]): Digits from left to right by their centres.
    """

    image_id: int
    file_name: str
    width: int
    height: int
    digits: tuple[SceneDigit, ...]

    def side_order(self, right: bool = False) -> list[SceneDigit] | None:
        """Sort the digits from the left (or right); None if the first is ambiguous.

        It is unambiguous if its outer edge and its centre are further out than any other's by :data:`SIDE_MARGIN`.
        """
        if not self.digits:
            return None
        sign = -1 if right else 1
        edges = {id(digit): sign * (digit.box[0] + (digit.box[2] if right else 0)) for digit in self.digits}
        ordered = sorted(self.digits, key=lambda digit: edges[id(digit)])
        margin = SIDE_MARGIN * self.width
        first = ordered[0]
        for other in ordered[1:]:
            if edges[id(other)] - edges[id(first)] < margin or sign * (other.centre - first.centre) < margin:
                return None
        return ordered

    def size_order(self) -> list[SceneDigit] | None:
        """Sort the digits from the largest to the smallest; None if the first is ambiguous.

        It is unambiguous if it is taller than any other by :data:`SIZE_MARGIN` and its box has the largest area.
        """
        if not self.digits:
            return None
        ordered = sorted(self.digits, key=lambda digit: -digit.box[3])
        first = ordered[0]
        for other in ordered[1:]:
            if first.box[3] < SIZE_MARGIN * other.box[3] or first.box[2] * first.box[3] <= other.box[2] * other.box[3]:
                return None
        return ordered


def colour_name(colour: Sequence[int]) -> str | None:
    """Name an RGB colour from 0 to 255, or None if ambiguous; ``colour_name((250, 60, 60))`` is 'red'."""
    hue, saturation, _ = colorsys.rgb_to_hsv(*(value / 255 for value in colour))
    nearest = round(6 * hue)
    if saturation < MIN_SATURATION or abs(360 * hue - 60 * nearest) > MAX_HUE_OFF:
        return None
    return COLOURS[nearest % 6]


def _corners(values: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Pair ``x, y, x, y, ...``."""
    return tuple(zip(values[::2], values[1::2], strict=True))


def with_article(name: str) -> str:
    """Put the article before a name: ``'an eight'``, ``'a two'``."""
    return f'{"an" if name.startswith("e") else "a"} {name}'


def scene_files(scenes: str | Path, splits: Sequence[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Find the annotation files of a folder of scenes.

    Args:
        scenes (str | Path): The folder that ``prepare_scenes.py`` wrote.
        splits (Sequence[str]): ``'train'``, ``'test'`` or both.

    Returns:
        tuple: path by split, and the SHA-256 of the file by split.

    Raises:
        FileNotFoundError: a file is missing.
    """
    paths = {split: Path(scenes, 'annotations', f'{split}.json') for split in splits}
    for path in paths.values():
        if not path.is_file():
            raise FileNotFoundError(
                f'there are no annotations {path}; write scenes with tools/dataset_converters/prepare_scenes.py'
            )
    return paths, {split: sha256_of(path) for split, path in paths.items()}


def read_scenes(path: str | Path) -> list[Scene]:
    """Read the scenes of an annotation file written by ``prepare_scenes.py``.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is another kind of file, or of a release without the colours of the ink.
    """
    content = read_coco_file(path)
    labels = {name: label for label, name in enumerate(get_class_names('digits'))}
    names = {category['id']: category['name'] for category in content['categories']}
    if not set(names.values()) <= set(labels):
        raise DataError(f'{path} has categories that are no digits; expected annotations of prepare_scenes.py')
    digits: dict[int, list[SceneDigit]] = {image['id']: [] for image in content['images']}
    for item in content['annotations']:
        if 'colour' not in item:
            raise DataError(
                f'{path}: annotation {item["id"]} has no colour; write the scenes again with '
                'tools/dataset_converters/prepare_scenes.py, which leaves the pictures as they are'
            )
        label = labels[names[item['category_id']]]
        shape = {}
        if 'quad' in item:
            shape = {
                'outline': tuple(map(_corners, item['segmentation'])),
                'quad': _corners(item['quad']),
                'order': item['order'],
            }
        digits[item['image_id']].append(SceneDigit(label, tuple(item['bbox']), colour_name(item['colour']), **shape))
    scenes = []
    for image in content['images']:
        stem = Path(image['file_name']).stem
        if not stem.isdecimal():
            raise DataError(f'{path}: the picture {image["file_name"]} is not named by a number, as scenes are')
        ordered = sorted(digits[image['id']], key=lambda digit: digit.centre)
        scenes.append(Scene(int(stem), image['file_name'], image['width'], image['height'], tuple(ordered)))
    return scenes
