"""Video clips that need no download: a real handwritten digit that moves, grows, shrinks, turns, or stands still.

The digits are those of one split of :mod:`.digits`, light ink on a generated darker background, as in :mod:`.scenes`.
What a digit looks like in a frame is its column, its row, the logarithm of its size, and its angle. Each of the four
has a *path*: a straight line over the frames, whose middle and length are random. A motion plays one of the paths,
forwards or backwards; the others are stopped at a random frame of theirs; a clip that stands still has all four
stopped.

So a single frame does not tell the motion: in a frame picked at random each of the four is at a random frame of its
own path, under every motion alike, and what else is random does not depend on the motion. Who sees one such frame is
right in 1 of 9 clips on average. Who also knows which frame it is learns a little more, because early frames of what
moves to the right tend to be on the left; paths are short against the range they are in, so that even the first frame,
seen with its number and measured without error, allows less than 0.4 (``tests/test_datasets/test_clips.py`` computes
it). Clip ``i`` of a folder depends on the seed, the folder's name and ``i`` alone.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from florence_mm.formats.video import encode_mp4
from florence_mm.language.prompts import get_class_names

from .digit_ink import draw_ink, ink_colour
from .digits import Split, digit_indices, load_digits_split
from .generated import write_generated
from .scene_backgrounds import make_background
from .scene_facts import with_article

RECORD = 'clips.json'
# raised when clips of the same options change, so that a folder of before is not taken for this one
VERSION = 2
FPS = 8
# what moves, and whether to larger values; columns count to the right, rows down, angles counterclockwise
MOTIONS: dict[str, tuple[int, int]] = {
    'left': (0, -1),
    'right': (0, 1),
    'up': (1, -1),
    'down': (1, 1),
    'growing': (2, 1),
    'shrinking': (2, -1),
    'clockwise': (3, -1),
    'counterclockwise': (3, 1),
    'still': (0, 0),
}
PHRASES = {
    'left': 'moving to the left',
    'right': 'moving to the right',
    'up': 'moving up',
    'down': 'moving down',
    'growing': 'growing',
    'shrinking': 'shrinking',
    'clockwise': 'turning clockwise',
    'counterclockwise': 'turning counterclockwise',
    'still': 'standing still',
}
# middle of the range, half of the range, shortest and longest path: column and row of the centre in widths of the
# image; logarithm of the 8x8 image's height in widths; degrees
AXES = np.array(
    [
        [0.5, 0.24, 0.16, 0.24],
        [0.5, 0.24, 0.16, 0.24],
        [np.log(0.35), 0.33, 0.33, 0.42],
        [0.0, 50.0, 40.0, 50.0],
    ]
)


def caption(digit: str, motion: str) -> str:
    """``caption('seven', 'left')`` is 'a seven moving to the left'."""
    return f'{with_article(digit)} {PHRASES[motion]}'


def parts(digit: str, motion: str) -> list[str]:
    """What says less than the caption: the digit alone, and the motion alone.

    Towers that know digits read past the motion of a whole caption: while the video tower does not see motions, a text
    tower that tells them apart gains nothing, nor the other way round.
    """
    return [with_article(digit), f'a digit {PHRASES[motion]}']


def draw_states(rng: np.random.Generator, motion: str, frames: int) -> np.ndarray:
    """Column, row, log size and angle in each frame, as :data:`AXES` has them: ``(frames, 4)``."""
    middle, half, shortest, longest = AXES.T
    length = rng.uniform(shortest, longest)
    centre = middle + rng.uniform(-1, 1, 4) * (half - length / 2)
    # the moment of each axis in each frame, from -1/2 to 1/2 on its path: stopped, unless the motion plays it
    moments = np.linspace(-0.5, 0.5, frames)
    played = np.repeat(moments[rng.integers(frames, size=(1, 4))], frames, axis=0)
    axis, direction = MOTIONS[motion]
    if direction:
        played[:, axis] = direction * moments
    return centre + length * played


def draw_clip(rng: np.random.Generator, image: np.ndarray, motion: str, size: int, frames: int) -> np.ndarray:
    """One clip.

    Args:
        rng (np.random.Generator): The source of all that is random.
        image (np.ndarray): A digit, ``(8, 8)`` float32 from 0 to 1.
        motion (str): A key of :data:`MOTIONS`.
        size (int): Width and height in pixels.
        frames (int): How many frames.

    Returns:
        np.ndarray: ``(frames, size, size, 3)`` uint8 RGB.
    """
    states = draw_states(rng, motion, frames)
    background = make_background(rng, size)
    colour = ink_colour(rng, background.mean((0, 1)))
    clip = np.empty((frames, size, size, 3), dtype=np.uint8)
    for frame, (column, row, log_size, angle) in zip(clip, states, strict=True):
        alpha = draw_ink(image, size, size * np.exp(log_size), angle, 0.0, (size * column - 0.5, size * row - 0.5))
        picture = background + alpha[..., None] * (colour - background)
        frame[:] = np.rint(255 * picture)
    return clip


@dataclass(frozen=True)
class ClipOptions:
    """What :func:`write_clips` writes.

    Attributes:
        train (int): Training clips; digits and motions are equally frequent where it is a multiple of 90.
        test (int): Test clips.
        size (int): Width and height of a frame in pixels.
        frames (int): Frames of a clip.
        seed (int): Another seed gives other clips.

    Raises:
        ValueError: a number is out of range.
    """

    train: int = 6480
    test: int = 450
    size: int = 64
    frames: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (('train', 1), ('test', 1), ('size', 32), ('frames', 2), ('seed', 0)):
            if getattr(self, name) < least:
                raise ValueError(f'{name}={getattr(self, name)} of the clips must be at least {least}')
        if self.size % 2:
            raise ValueError(f'size={self.size} of the clips must be even, as mp4 files need it')

    @cached_property
    def folders(self) -> dict[Split, int]:
        """Number of clips of each folder, which has the name of its split."""
        return {'train': self.train, 'test': self.test}


@dataclass(frozen=True)
class Clip:
    """A clip before it is drawn.

    Attributes:
        label (int): The digit, 0 to 9.
        motion (str): A key of :data:`MOTIONS`.
        digit (int): Place of the digit's image in scikit-learn's order.
    """

    label: int
    motion: str
    digit: int


def make_clip(options: ClipOptions, split: Split, index: int) -> tuple[np.ndarray, Clip]:
    """Clip ``index`` (from 0) of 'train' or 'test': its frames and what it shows."""
    rng = np.random.default_rng([options.seed, *split.encode(), index])
    images, labels = load_digits_split(split)
    label, motion = index % 10, tuple(MOTIONS)[index // 10 % len(MOTIONS)]
    choice = rng.choice(np.flatnonzero(labels == label))
    frames = draw_clip(rng, images[choice], motion, options.size, options.frames)
    return frames, Clip(label, motion, int(digit_indices(split)[choice]))


def _files(options: ClipOptions) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file: the clips of a split, then its lists."""
    names, motions = get_class_names('digits'), list(MOTIONS)
    yield 'motions.txt', ''.join(f'{motion}\n' for motion in motions).encode()
    for split, number in options.folders.items():
        classes, rows = [], []
        for index in range(number):
            frames, clip = make_clip(options, split, index)
            file, digit = f'{split}/{index:06d}.mp4', names[clip.label]
            yield file, encode_mp4(frames, FPS)
            classes.append(f'{file} {motions.index(clip.motion)}\n')
            row = {'video': file, 'digit': digit, 'motion': clip.motion, 'source': clip.digit}
            text = caption(digit, clip.motion)
            row.update({'text': text} if split == 'test' else {'texts': [text, *parts(digit, clip.motion)]})
            rows.append(json.dumps(row) + '\n')
        yield f'{split}.txt', ''.join(classes).encode()
        yield f'{split}.jsonl', ''.join(rows).encode()


def write_clips(out: str | Path, options: ClipOptions | None = None) -> tuple[int, int]:
    """Write the clips as mp4 files with their lists.

    ``train/`` and ``test/`` hold the clips. ``train.txt`` and ``test.txt`` have a path and the number of the motion
    a line, which is what mmaction2's ``VideoDataset`` reads; ``motions.txt`` has the motions' names in that order.
    ``train.jsonl`` and ``test.jsonl`` have ``video``, ``digit``, ``motion`` and ``source`` (place of the digit's image
    in scikit-learn's order) a row, and the caption: as ``text`` of a test clip, and first among the ``texts`` of a
    training clip, where :func:`parts` of it follow.

    What is there already and right is left alone, see :func:`.generated.write_generated`.

    Args:
        out (str | Path): The folder.
        options (ClipOptions | None): None: the defaults.

    Returns:
        tuple: how many files were written, and how many there are.
    """
    options = options or ClipOptions()
    total = sum(number + 2 for number in options.folders.values()) + 1
    wanted = {'version': VERSION, **asdict(options)}
    return write_generated(Path(out), RECORD, wanted, _files(options), total, 'drawing clips')
