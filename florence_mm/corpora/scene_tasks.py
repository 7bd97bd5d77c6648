"""Embedded tasks: what a model that writes boxes, outlines and texts is asked about the scenes of digits.

Each task has its own file of lines (:mod:`florence_mm.formats.tasks`), so that a mixture gives each its weight. A digit
is referred to only by words that fit no other (:func:`referring_phrases`). Pictures are those of the scenes, whose
annotations have outlines.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from florence_mm.errors import DataError
from florence_mm.formats.tasks import TaskRow, task_line
from florence_mm.language.regions import Box, Polygon, Region

from .generated import write_generated
from .scene_captions import caption_text, describe, make_captions, make_phrased_captions
from .scene_facts import Scene, SceneDigit, read_scenes, scene_files

RECORD = 'tasks.json'
# increased when files of the same options change
VERSION = 1
SPLITS = ('train', 'test')
# a smaller part of the outline, as a fraction of the largest, is left out of answers: a speck that another digit leaves
MIN_PART = 0.1


@dataclass(frozen=True)
class TaskOptions:
    """Options of :func:`write_tasks`.

    Attributes:
        tolerance (float): How far the outline in an answer may lie from that of the scene, as a fraction of the
            picture; larger makes shorter answers.
        seed (int): Another seed gives other captions and phrases.

    Raises:
        ValueError: a number is out of range.
    """

    tolerance: float = 1 / 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance <= 0.1:
            raise ValueError(
                f'tolerance={self.tolerance} of the tasks must be a fraction of the picture, from 0 to 0.1'
            )
        if self.seed < 0:
            raise ValueError(f'seed={self.seed} of the tasks must be at least 0')


def referring_phrases(scene: Scene) -> dict[int, list[str]]:
    """Make the phrases that fit one digit of a scene alone.

    They name the digit (``'the five'``), its colour (``'the red five'``, ``'the red digit'``), or its place or size
    (``'the leftmost digit'``, ``'the largest digit'``), each only where it is unambiguous (:mod:`.scene_facts`).

    Returns:
        dict: phrases by the index of the digit in ``scene.digits``; digits without any are left out.
    """
    phrases: dict[int, list[str]] = {}
    for index, digit in enumerate(scene.digits):
        others = [other for other in scene.digits if other is not digit]
        same = [other for other in others if other.label == digit.label]
        found = [] if same else [f'the {digit.name}']
        # a pale or mixed colour could be called the same
        if digit.colour is not None and all(other.colour not in (digit.colour, None) for other in same):
            found.append(f'the {digit.colour} {digit.name}')
        if digit.colour is not None and others and all(other.colour not in (digit.colour, None) for other in others):
            found.append(f'the {digit.colour} digit')
        if found:
            phrases[index] = found
    if len(scene.digits) > 1:
        for phrase, order in (
            ('the leftmost digit', scene.side_order()),
            ('the rightmost digit', scene.side_order(right=True)),
            ('the largest digit', scene.size_order()),
        ):
            if order is not None:
                index = next(i for i, digit in enumerate(scene.digits) if digit is order[0])
                phrases.setdefault(index, []).append(phrase)
    return dict(sorted(phrases.items()))


class _Shapes:
    """Places of digits as fractions of their picture."""

    def __init__(self, scene: Scene, tolerance: float) -> None:
        self.size = np.array([scene.width, scene.height], dtype=np.float64)
        self.tolerance = tolerance * float(self.size.max())

    def box(self, digit: SceneDigit) -> Box:
        corners = np.array([digit.box[:2], np.add(digit.box[:2], digit.box[2:])]) / self.size
        return tuple(corners.ravel().tolist())

    def quad(self, digit: SceneDigit) -> Polygon:
        """The rotated rectangle; a corner outside the picture is moved to its edge."""
        return tuple(map(tuple, np.clip(np.array(digit.quad) / self.size, 0, 1).tolist()))

    def outline(self, digit: SceneDigit) -> tuple[Polygon, ...]:
        """The outline with fewer corners and without specks."""
        parts = [np.array(part, dtype=np.float32)[:, None] for part in digit.outline]
        least = MIN_PART * max(map(cv2.contourArea, parts))
        polygons = []
        for part in parts:
            if cv2.contourArea(part) >= least:
                coarse = cv2.approxPolyDP(part, self.tolerance, closed=True)
                points = (coarse if len(coarse) > 2 else part)[:, 0].astype(np.float64) / self.size
                polygons.append(tuple(map(tuple, points.tolist())))
        return tuple(polygons)


_Rows = Iterator[TaskRow]


def _caption(rng: np.random.Generator, scene: Scene, shapes: _Shapes) -> _Rows:
    yield TaskRow(scene.file_name, 'caption', answers=tuple(make_captions(rng, scene)))


def _detection(rng: np.random.Generator, scene: Scene, shapes: _Shapes) -> _Rows:
    regions = tuple(Region(digit.name, boxes=(shapes.box(digit),)) for digit in scene.digits)
    yield TaskRow(scene.file_name, 'detection', regions=regions)


def _dense_region_caption(rng: np.random.Generator, scene: Scene, shapes: _Shapes) -> _Rows:
    regions = tuple(Region(describe(digit), boxes=(shapes.box(digit),)) for digit in scene.digits)
    yield TaskRow(scene.file_name, 'dense_region_caption', regions=regions)


def _region_category(rng: np.random.Generator, scene: Scene, shapes: _Shapes) -> _Rows:
    for digit in scene.digits:
        yield TaskRow(scene.file_name, 'region_category', region=shapes.box(digit), answers=(digit.name,))


def _region_segmentation(rng: np.random.Generator, scene: Scene, shapes: _Shapes) -> _Rows:
    for digit in scene.digits:
        regions = (Region(polygons=shapes.outline(digit)),)
        yield TaskRow(scene.file_name, 'region_segmentation', region=shapes.box(digit), regions=regions)


def _phrase_grounding(rng: np.random.Generator, scene: Scene, shapes: _Shapes) -> _Rows:
    caption = make_phrased_captions(rng, scene, 1)[0]
    # equal phrases of a caption are one, with the boxes of all
    boxes: dict[str, dict[Box, None]] = {}
    for phrase in caption:
        if phrase.digits:
            boxes.setdefault(phrase.text, {}).update(dict.fromkeys(map(shapes.box, phrase.digits)))
    if boxes:
        regions = tuple(Region(text, boxes=tuple(found)) for text, found in boxes.items())
        yield TaskRow(scene.file_name, 'phrase_grounding', caption_text(caption), regions=regions)


def _referred(rng: np.random.Generator, scene: Scene) -> Iterator[tuple[SceneDigit, str]]:
    """Each digit that can be referred to, and one of its phrases."""
    for index, phrases in referring_phrases(scene).items():
        yield scene.digits[index], phrases[int(rng.integers(len(phrases)))]


def _referring(rng: np.random.Generator, scene: Scene, shapes: _Shapes) -> _Rows:
    for digit, phrase in _referred(rng, scene):
        regions = (Region(phrase, boxes=(shapes.box(digit),)),)
        yield TaskRow(scene.file_name, 'phrase_grounding', phrase, regions=regions)


def _referring_segmentation(rng: np.random.Generator, scene: Scene, shapes: _Shapes) -> _Rows:
    for digit, phrase in _referred(rng, scene):
        regions = (Region(polygons=shapes.outline(digit)),)
        yield TaskRow(scene.file_name, 'referring_segmentation', phrase, regions=regions)


def _ocr_with_region(rng: np.random.Generator, scene: Scene, shapes: _Shapes) -> _Rows:
    read = sorted(scene.digits, key=lambda digit: digit.order)
    regions = tuple(Region(str(digit.label), quad=shapes.quad(digit)) for digit in read)
    yield TaskRow(scene.file_name, 'ocr_with_region', regions=regions)


#: Makers of rows by the name of their file.
FILES: dict[str, Callable[[np.random.Generator, Scene, _Shapes], _Rows]] = {
    'caption': _caption,
    'detection': _detection,
    'dense_region_caption': _dense_region_caption,
    'region_category': _region_category,
    'region_segmentation': _region_segmentation,
    'phrase_grounding': _phrase_grounding,
    'referring': _referring,
    'referring_segmentation': _referring_segmentation,
    'ocr_with_region': _ocr_with_region,
}


def make_task_rows(scenes: list[Scene], name: str, split: str, options: TaskOptions) -> Iterator[TaskRow]:
    """Yield the rows of a file.

    Args:
        scenes: the scenes, with outlines.
        name: a key of :data:`FILES`.
        split: 'train' or 'test'.
        options: see :class:`TaskOptions`.
    """
    for scene in scenes:
        rng = np.random.default_rng([options.seed, *f'{split} {name}'.encode(), scene.image_id])
        yield from FILES[name](rng, scene, _Shapes(scene, options.tolerance))


def _files(paths: dict[str, Path], options: TaskOptions) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file."""
    for split, path in paths.items():
        scenes = read_scenes(path)
        if any(digit.order < 0 for scene in scenes for digit in scene.digits):
            raise DataError(
                f'{path} has no outlines; write the scenes with tools/dataset_converters/prepare_scenes.py --outlines'
            )
        for name in FILES:
            lines = (json.dumps(task_line(row)) + '\n' for row in make_task_rows(scenes, name, split, options))
            yield f'{split}_{name}.jsonl', ''.join(lines).encode()


def write_tasks(scenes: str | Path, out: str | Path, options: TaskOptions | None = None) -> tuple[int, int]:
    """Write the task files of a folder of scenes: ``train_detection.jsonl``, ``test_detection.jsonl``, ...

    Pictures are named relative to the scenes' ``train`` and ``test``. Correct files that exist are kept, see
    :func:`.generated.write_generated`.

    Args:
        scenes (str | Path): The folder that ``prepare_scenes.py --outlines`` wrote.
        out (str | Path): The folder to write to.
        options (TaskOptions | None): None: the defaults.

    Returns:
        tuple: number of files written, and number of files in all.

    Raises:
        FileNotFoundError: there are no scenes.
        DataError: the scenes' annotations are unusable, or without outlines.
    """
    options = options or TaskOptions()
    paths, digests = scene_files(scenes, SPLITS)
    wanted = {'version': VERSION, 'scenes': digests, **asdict(options)}
    return write_generated(Path(out), RECORD, wanted, _files(paths, options), len(FILES) * len(SPLITS), 'asking tasks')
