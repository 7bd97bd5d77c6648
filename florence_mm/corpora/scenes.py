"""Embedded detection scenes: real handwritten digits on generated backgrounds.

Digits of one split of :mod:`.digits` are enlarged, rotated, coloured and drawn in light ink on a darker background,
partly over each other. Annotations are COCO's: the box of a digit is the tight box of its visible ink. Image ``i`` of
a folder depends only on the seed, the name of the folder and ``i``, so that more images do not change the first ones,
and a damaged one can be drawn again. Beyond COCO's keys an annotation has
``colour`` (red, green and blue of the ink, 0 to 255), ``visible`` and ``digit`` (see :class:`SceneObject`), and with
``SceneOptions(outlines=True)`` the keys of :func:`.scene_outlines.outline_keys`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np

from florence_mm.errors import DataError
from florence_mm.language.prompts import get_class_names
from florence_mm.utils.boxes import box_iou

from .digit_ink import draw_ink, ink_colour, tight_box
from .digits import Split, digit_indices, load_digits_split
from .generated import write_generated
from .scene_backgrounds import make_background
from .scene_outlines import outline_keys

RECORD = 'scenes.json'
# increased when files of the same options change, so that an older folder is not taken for current
VERSION = 2
# the same, of the files with outlines
OUTLINES_VERSION = 3
# height of a digit in units of the image's; its width is about three quarters of it
HEIGHTS = (0.17, 0.4)
MAX_ANGLE = 20.0  # degrees
MAX_SHEAR = 0.15
MAX_IOU = 0.2  # of the boxes of two digits, drawn whole
MIN_VISIBLE = 0.8  # of a digit's ink
EMPTY = 0.05  # of the images have no digits
_ATTEMPTS = 200


@dataclass
class SceneObject:
    """A digit in a scene.

    Attributes:
        label (int): The class, 0 to 9.
        digit (int): Index of the image in scikit-learn's order.
        box (tuple): ``x, y, width, height`` in pixels: the tight box of the visible ink.
        visible (float): Fraction of the ink that no later digit covers.
        colour (tuple): Red, green and blue of the ink, 0 to 255.
        angle (float): Degrees by which the digit is turned, counterclockwise.
        ink (np.ndarray): The visible ink, ``(size, size)`` bool.
    """

    label: int
    digit: int
    box: tuple[int, int, int, int]
    visible: float
    colour: tuple[int, int, int]
    angle: float
    ink: np.ndarray = field(repr=False, compare=False)


def compose_scene(
    rng: np.random.Generator,
    images: np.ndarray,
    labels: np.ndarray,
    places: np.ndarray,
    size: int = 128,
    count: int = 4,
    heights: tuple[float, float] = HEIGHTS,
) -> tuple[np.ndarray, list[SceneObject]]:
    """Draw one scene.

    Args:
        rng (np.random.Generator): Source of all randomness.
        images (np.ndarray): ``(N, 8, 8)`` float32 from 0 to 1.
        labels (np.ndarray): ``(N,)`` from 0 to 9.
        places (np.ndarray): ``(N,)``, indices for :attr:`SceneObject.digit`.
        size (int): Width and height of the image.
        count (int): Number of digits.
        heights (tuple): Smallest and largest height of a digit in units of ``size``.

    Returns:
        tuple: the image ``(size, size, 3)`` uint8 RGB and its objects.

    Raises:
        DataError: the digits do not fit with the overlap that is allowed.
    """
    canvas = make_background(rng, size)
    classes = np.unique(labels)
    objects: list[dict] = []
    for _ in range(count):
        # draw the class first, so that classes are equally frequent
        choice = rng.choice(np.flatnonzero(labels == rng.choice(classes)))
        placed = _place(rng, images[choice], size, heights, objects)
        if placed is None:
            raise DataError(
                f'{count} digits do not fit into a scene of {size}x{size} pixels with little overlap; ask for fewer'
            )
        alpha, angle = placed
        ink = alpha > 0.5
        for other in objects:
            other['seen'] &= ~ink
        colour = ink_colour(rng, canvas[ink].mean(0))
        canvas = canvas + alpha[..., None] * (colour - canvas)
        objects.append(
            {
                'choice': choice,
                'ink': ink,
                'seen': ink.copy(),
                'box': tight_box(ink),
                'colour': colour,
                'angle': angle,
            }
        )
    picture = np.rint(255 * canvas).astype(np.uint8)
    return picture, [
        SceneObject(
            label=int(labels[item['choice']]),
            digit=int(places[item['choice']]),
            box=tight_box(item['seen']),
            visible=round(float(item['seen'].sum() / item['ink'].sum()), 4),
            colour=tuple(np.rint(255 * item['colour']).astype(int).tolist()),
            angle=item['angle'],
            ink=item['seen'],
        )
        for item in objects
    ]


def _place(
    rng: np.random.Generator, image: np.ndarray, size: int, heights: tuple[float, float], objects: list[dict]
) -> tuple[np.ndarray, float] | None:
    """Place a digit with little overlap and return its opacity and angle; None if no such place was found."""
    for attempt in range(_ATTEMPTS):
        # sizes are uniform in their logarithm; after many failures only small digits are tried
        largest = heights[1] * (heights[0] / heights[1]) ** (attempt / _ATTEMPTS)
        height = size * float(np.exp(rng.uniform(np.log(heights[0]), np.log(largest))))
        angle, shear = rng.uniform(-MAX_ANGLE, MAX_ANGLE), rng.uniform(-MAX_SHEAR, MAX_SHEAR)
        alpha = draw_ink(image, size, height, angle, shear, rng.uniform(height / 2, size - height / 2, 2))
        ink = alpha > 0.5
        if ink[[0, -1]].any() or ink[:, [0, -1]].any():
            continue  # it would be cut
        box = tight_box(ink)
        overlaps = box_iou(_corners([box]), _corners([other['box'] for other in objects]))[0]
        if all(
            overlap <= MAX_IOU and (other['seen'] & ~ink).sum() >= MIN_VISIBLE * other['ink'].sum()
            for overlap, other in zip(overlaps, objects, strict=True)
        ):
            return alpha, angle
    return None


def _corners(boxes: Sequence[Sequence[int]]) -> np.ndarray:
    """Convert ``x, y, width, height`` to ``x1, y1, x2, y2``, ``(N, 4)``."""
    corners = np.array(boxes, dtype=np.int64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    return corners


@dataclass(frozen=True)
class SceneOptions:
    """Options of :func:`write_scenes`.

    Attributes:
        train (int): Number of training images.
        test (int): Number of test images.
        size (int): Width and height of an image in pixels.
        digits (tuple): Smallest and largest number of digits in an image that has any.
        heights (tuple): Smallest and largest height of a digit in units of the image's.
        seed (int): Another seed gives other images.
        held_out (tuple): If given, ``train_base`` is also written, without these classes.
        outlines (bool): Annotations have outlines, rotated rectangles and reading order too. The pictures, and all
            other keys, are the same.

    Raises:
        ValueError: a number is out of range, or ``held_out`` has an unknown class or all classes.
    """

    train: int = 2000
    test: int = 200
    size: int = 128
    digits: tuple[int, int] = (3, 7)
    heights: tuple[float, float] = HEIGHTS
    seed: int = 0
    held_out: tuple[str, ...] = ()
    outlines: bool = False

    def __post_init__(self) -> None:
        for name, least in (('train', 1), ('test', 1), ('size', 64), ('seed', 0)):
            if getattr(self, name) < least:
                raise ValueError(f'{name}={getattr(self, name)} of the scenes must be at least {least}')
        if not 1 <= self.digits[0] <= self.digits[1]:
            raise ValueError(f'digits={self.digits} of the scenes must be the smallest and the largest number, from 1')
        if not 0 < self.heights[0] <= self.heights[1] <= 0.7:
            raise ValueError(
                f'heights={self.heights} of the scenes must be the least and the greatest, from above 0 to 0.7 of the '
                'picture'
            )
        names = get_class_names('digits')
        for name in self.held_out:
            if name not in names:
                raise ValueError(f'held_out={name!r} is not one of the classes {", ".join(names)}')
        if len(set(self.held_out)) == len(names):
            raise ValueError('held_out names all classes; leave at least one for training')
        if not isinstance(self.outlines, bool):
            raise ValueError(f'outlines={self.outlines!r} of the scenes must be True or False')

    @property
    def record(self) -> dict:
        """All that the files depend on; without outlines that of the releases that had none."""
        values = asdict(self)
        return {'version': OUTLINES_VERSION if values.pop('outlines') else VERSION, **values}

    @property
    def folders(self) -> dict[str, tuple[Split, int, list[int]]]:
        """Split, number of images and labels of each folder."""
        every = list(range(10))
        folders: dict[str, tuple[Split, int, list[int]]] = {
            'train': ('train', self.train, every),
            'test': ('test', self.test, every),
        }
        if self.held_out:
            names = get_class_names('digits')
            folders['train_base'] = ('train', self.train, [i for i in every if names[i] not in self.held_out])
        return folders


def make_scene(options: SceneOptions, folder: str, index: int) -> tuple[np.ndarray, list[SceneObject]]:
    """Image ``index`` (from 0) of ``'train'``, ``'test'`` or ``'train_base'``: RGB and objects."""
    split, _, classes = options.folders[folder]
    images, labels = load_digits_split(split)
    kept = np.isin(labels, classes)
    rng = np.random.default_rng([options.seed, *folder.encode(), index])
    count = 0 if rng.random() < EMPTY else int(rng.integers(options.digits[0], options.digits[1] + 1))
    return compose_scene(
        rng, images[kept], labels[kept], digit_indices(split)[kept], options.size, count, options.heights
    )


def _files(options: SceneOptions, folder: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each file of a folder: its images, then its annotations."""
    _, number, classes = options.folders[folder]
    names = get_class_names('digits')
    images, annotations = [], []
    for index in range(number):
        picture, objects = make_scene(options, folder, index)
        name = f'{index:06d}.png'
        yield f'{folder}/{name}', cv2.imencode('.png', picture[..., ::-1])[1].tobytes()
        images.append({'id': index + 1, 'file_name': name, 'width': options.size, 'height': options.size})
        extra = outline_keys([(item.ink, item.angle) for item in objects]) if options.outlines else [{}] * len(objects)
        for item, keys in zip(objects, extra, strict=True):
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': index + 1,
                    'category_id': item.label + 1,
                    'bbox': list(item.box),
                    'area': item.box[2] * item.box[3],
                    'iscrowd': 0,
                    'visible': item.visible,
                    'colour': list(item.colour),
                    'digit': item.digit,
                    **keys,
                }
            )
    content = {
        'info': {'description': f'Embedded scenes of handwritten digits, {folder}', 'seed': options.seed},
        'images': images,
        'annotations': annotations,
        'categories': [{'id': label + 1, 'name': names[label]} for label in classes],
    }
    yield f'annotations/{folder}.json', json.dumps(content).encode()


def write_scenes(out: str | Path, options: SceneOptions | None = None) -> tuple[int, int]:
    """Write the scenes as PNG files with COCO annotations: ``train/``, ``test/``, ``annotations/train.json``, ...

    Correct files that exist are kept, see :func:`.generated.write_generated`.

    Args:
        out (str | Path): The folder.
        options (SceneOptions | None): None: the defaults.

    Returns:
        tuple: number of files written, and number of files in all.

    Raises:
        DataError: the digits do not fit into an image.
    """
    options = options or SceneOptions()
    total = sum(number + 1 for _, number, _ in options.folders.values())
    files = (file for folder in options.folders for file in _files(options, folder))
    return write_generated(Path(out), RECORD, options.record, files, total, 'drawing scenes')
