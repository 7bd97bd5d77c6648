"""Embedded video clips: a real handwritten digit that moves, grows, shrinks, turns, or stands still.

The digits are those of one split of :mod:`.digits`, light ink on a generated darker background, as in :mod:`.scenes`.
A digit in a frame is described by its column, its row, the logarithm of its size, and its angle. Each of the four has
a *path*: a straight line over the frames with random middle and length. A motion follows one of the paths, forwards or
backwards; the other three stay at a random point of theirs; a still clip has all four at rest.

So a single frame does not tell the motion: in a random frame each of the four is at a random point of its own path,
whatever the motion, and nothing else that is random depends on the motion. From one random frame the accuracy is 1/9.
A known frame number helps a little, because early frames of a motion to the right tend to be on the left; paths are
short relative to their range, so that even the first frame, measured without error, allows less than 0.4
(``tests/test_corpora/test_clips.py`` computes this). Clip ``i`` of a folder depends only
on the seed, the name of the folder and ``i``.
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
# increased when clips of the same options change, so that an older folder is not taken for current
VERSION = 2
FPS = 8
# axis and direction of each motion; columns count to the right, rows down, angles counterclockwise
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
    """Caption of a clip; ``caption('seven', 'left')`` is 'a seven moving to the left'."""
    return f'{with_article(digit)} {PHRASES[motion]}'


def partial_captions(digit: str, motion: str) -> list[str]:
    """Two captions that say less: only the digit, and only the motion.

    With full captions alone, towers that know digits ignore the motion: as long as one tower does not distinguish
    motions, the other gains nothing from it.
    """
    return [with_article(digit), f'a digit {PHRASES[motion]}']


def draw_states(rng: np.random.Generator, motion: str, frames: int) -> np.ndarray:
    """Draw column, row, log size and angle in each frame, in the units of :data:`AXES`: ``(frames, 4)``."""
    middle, half, shortest, longest = AXES.T
    length = rng.uniform(shortest, longest)
    centre = middle + rng.uniform(-1, 1, 4) * (half - length / 2)
    # position of each axis on its path in each frame, from -1/2 to 1/2: at rest unless the motion follows it
    moments = np.linspace(-0.5, 0.5, frames)
    position = np.repeat(moments[rng.integers(frames, size=(1, 4))], frames, axis=0)
    axis, direction = MOTIONS[motion]
    if direction:
        position[:, axis] = direction * moments
    return centre + length * position


def draw_clip(rng: np.random.Generator, image: np.ndarray, motion: str, size: int, frames: int) -> np.ndarray:
    """Draw one clip.

    Args:
        rng (np.random.Generator): Source of all randomness.
        image (np.ndarray): A digit, ``(8, 8)`` float32 from 0 to 1.
        motion (str): A key of :data:`MOTIONS`.
        size (int): Width and height in pixels.
        frames (int): Number of frames.

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
    """Options of :func:`write_clips`.

    Attributes:
        train (int): Number of training clips; digits and motions are balanced for multiples of 90.
        test (int): Number of test clips.
        size (int): Width and height of a frame in pixels.
        frames (int): Frames per clip.
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
        """Number of clips in each folder, named like its split."""
        return {'train': self.train, 'test': self.test}


@dataclass(frozen=True)
class Clip:
    """Description of a clip.

    Attributes:
        label (int): The digit, 0 to 9.
        motion (str): A key of :data:`MOTIONS`.
        digit (int): Index of the digit's image in scikit-learn's order.
    """

    label: int
    motion: str
    digit: int


def make_clip(options: ClipOptions, split: Split, index: int) -> tuple[np.ndarray, Clip]:
    """Make clip ``index`` (from 0) of 'train' or 'test': its frames and description."""
    rng = np.random.default_rng([options.seed, *split.encode(), index])
    images, labels = load_digits_split(split)
    label, motion = index % 10, tuple(MOTIONS)[index // 10 % len(MOTIONS)]
    choice = rng.choice(np.flatnonzero(labels == label))
    frames = draw_clip(rng, images[choice], motion, options.size, options.frames)
    return frames, Clip(label, motion, int(digit_indices(split)[choice]))


def _files(options: ClipOptions) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each file: the clips of a split, then its lists."""
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
            row.update({'text': text} if split == 'test' else {'texts': [text, *partial_captions(digit, clip.motion)]})
            rows.append(json.dumps(row) + '\n')
        yield f'{split}.txt', ''.join(classes).encode()
        yield f'{split}.jsonl', ''.join(rows).encode()


def write_clips(out: str | Path, options: ClipOptions | None = None) -> tuple[int, int]:
    """Write the clips as mp4 files with their lists.

    ``train/`` and ``test/`` hold the clips. ``train.txt`` and ``test.txt`` have a path and the index of the motion
    per line, as mmaction2's ``VideoDataset`` reads them; ``motions.txt`` has the names of the motions in that order.
    Rows of ``train.jsonl`` and ``test.jsonl`` have ``video``, ``digit``, ``motion``, ``source`` (index of the digit's
    image in scikit-learn's order), and the caption: ``text`` of a test clip, or the first of a training clip's
    ``texts``, followed by :func:`partial_captions`.

    Correct files that exist are kept, see :func:`.generated.write_generated`.

    Args:
        out (str | Path): The folder.
        options (ClipOptions | None): None: the defaults.

    Returns:
        tuple: number of files written, and number of files in all.
    """
    options = options or ClipOptions()
    total = sum(number + 2 for number in options.folders.values()) + 1
    wanted = {'version': VERSION, **asdict(options)}
    return write_generated(Path(out), RECORD, wanted, _files(options), total, 'drawing clips')
