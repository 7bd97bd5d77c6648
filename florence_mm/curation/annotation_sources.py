"""Models as the data engine knows them: callables that annotate pictures, choose texts of regions, or are trained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from florence_mm.language.labels import normalize_text
from florence_mm.utils.boxes import box_iou
from florence_mm.utils.numbers import is_finite, is_whole

from . import annotation_reasons as reasons
from .annotation_items import Item, checked
from .annotation_parsing import Parser
from .options import require


class Specialist(Protocol):
    """A source of annotations: a detector, a captioner, a model of many tasks.

    Attributes:
        source: name in reports and of its annotations.
        name: what tells its annotations from those of another model, such as a digest of its weights.
        tasks: names of the tasks that it answers.
    """

    source: str
    name: str
    tasks: tuple[str, ...]

    def __call__(self, images: Sequence[np.ndarray], known: Sequence[Sequence[Item]]) -> Sequence[Sequence[Item]]:
        """Annotate pictures.

        Args:
            images: N pictures ``(H, W, 3)`` uint8 RGB, of any size.
            known: what is known of each picture so far, such as the captions whose phrases are to be found.

        Returns:
            for each picture its annotations, which depend on the picture and what is known of it alone. Their source
            is set by the caller.
        """


class TextChooser(Protocol):
    """A model that compares crops with texts, such as UniCL.

    Attributes:
        name: as of a :class:`Specialist`.
    """

    name: str

    def __call__(self, crops: Sequence[np.ndarray], texts: Sequence[Sequence[str]]) -> Sequence[Sequence[float]]:
        """Compute how near each text of a crop is to it; the nearest has the highest number."""


class TrainingData(NamedTuple):
    """What a model is trained on in a round.

    Attributes:
        annotations: task file of what is kept (:class:`florence_mm.datasets.tasks.TaskManifest`).
        root: folder that its pictures are relative to.
        round: number of the round, from 1.
    """

    annotations: Path
    root: Path
    round: int


class Trainer(Protocol):
    """What trains a model on annotations.

    Attributes:
        name: what tells its models from those of other settings.
    """

    name: str

    def __call__(self, data: TrainingData, folder: Path) -> Specialist:
        """Train a model, or load it if that is done.

        Args:
            data: what it is trained on.
            folder: for its files. After a kill it is called again with the same folder, and must end with the same
                model as if it had not been stopped.
        """


@dataclass(frozen=True)
class RegionTexts:
    """How texts of regions are chosen.

    Attributes:
        iou: least intersection over union of boxes that are one region.
        chunks: most noun chunks of a region's texts among its candidates; they need a parser.
    """

    iou: float = 0.7
    chunks: int = 8

    def __post_init__(self) -> None:
        require('region_texts.iou', self.iou, is_finite(self.iou) and 0 < self.iou <= 1, 'above 0 and at most 1')
        right = is_whole(self.chunks) and self.chunks >= 0
        require('region_texts.chunks', self.chunks, right, 'a whole number from 0')


#: Tasks whose texts are candidates for the text of a region: its category and its descriptions.
_CANDIDATES = ('detection', 'dense_region_caption', 'region_category', 'region_description')
#: Source of the texts that are chosen.
NEAREST = 'nearest'
_WRITTEN = 'dense_region_caption'


def annotate(
    images: Sequence[np.ndarray], known: Sequence[Sequence[Item]], specialists: Sequence[Specialist]
) -> list[list[Item]]:
    """Let specialists annotate pictures, one after the other, each knowing what those before it found.

    Args:
        images: the pictures.
        known: their annotations so far.
        specialists: the sources, in their order.

    Returns:
        for each picture what is known and what was found, checked (:func:`.annotation_items.checked`).

    Raises:
        ValueError: a specialist returns another number of lists.
    """
    items = [list(one) for one in known]
    for specialist in specialists:
        found = specialist(images, [[item for item in one if item.drop is None] for one in items])
        if len(found) != len(images):
            raise ValueError(
                f'the specialist {specialist.source!r} returned {len(found)} lists of annotations for {len(images)} '
                'pictures; return one for each'
            )
        for one, more in zip(items, found, strict=True):
            one += [checked(replace(item, source=specialist.source)) for item in more]
    return items


def choose_region_texts(
    image: np.ndarray,
    items: Sequence[Item],
    chooser: TextChooser,
    parser: Parser | None = None,
    options: RegionTexts | None = None,
) -> list[Item]:
    """Give each region of a picture the text that is nearest to its crop, of all that are known of it.

    Candidates are the category phrase, the descriptions, and with a parser the noun chunks of both (Florence-2, section
    3.2). The nearest becomes an item of the task ``dense_region_caption``; other such items of the region are dropped
    as ``farther_text``. A region with one candidate alone stays as it is.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        items: its annotations.
        chooser: compares crops with texts.
        parser: finds noun chunks.
        options: None: the defaults of :class:`RegionTexts`.
    """
    options = options or RegionTexts()
    found = list(items)
    places: list[list[int]] = []
    for index, item in enumerate(found):
        if item.drop is None and item.task in _CANDIDATES and item.box is not None and item.text:
            same = next((place for place in places if _iou(found[place[0]], item) >= options.iou), None)
            if same is None:
                places.append([index])
            else:
                same.append(index)
    texts = [_candidates([found[index].text for index in place], parser, options.chunks) for place in places]
    open_ = [n for n, candidates in enumerate(texts) if len(candidates) > 1]
    if not open_:
        return found
    crops = [crop(image, found[places[n][0]].box) for n in open_]
    nearness = chooser(crops, [texts[n] for n in open_])
    for n, numbers in zip(open_, nearness, strict=True):
        numbers = np.asarray(numbers, np.float64)
        if not np.isfinite(numbers).any():
            continue
        text = texts[n][int(np.nanargmax(np.where(np.isfinite(numbers), numbers, np.nan)))]
        _write_nearest(found, places[n], text)
    return found


def _write_nearest(found: list[Item], place: Sequence[int], text: str) -> None:
    written = False
    for index in place:
        if found[index].task == _WRITTEN:
            same = normalize_text(found[index].text) == normalize_text(text)
            found[index] = found[index].dropped(None if same else reasons.FARTHER_TEXT)
            written |= same
    if not written:
        first = found[place[0]]
        found.append(checked(Item(_WRITTEN, text, first.box, first.score, NEAREST)))


def _candidates(texts: Sequence[str], parser: Parser | None, chunks: int) -> list[str]:
    given = list(dict.fromkeys(texts))
    parsed = parser(given) if parser is not None and chunks else []
    phrases = [chunk for parse in parsed for chunk in parse.chunks][:chunks]
    known: dict[str, str] = {}
    for text in (*given, *phrases):
        known.setdefault(normalize_text(text), text)
    return list(known.values())


def _iou(one: Item, other: Item) -> float:
    return float(box_iou(np.array([one.box]), np.array([other.box]))[0, 0])


def crop(image: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """Cut a box out of a picture, at least one pixel.

    Args:
        image: ``(H, W, 3)``.
        box: fractions of width and height; edges are rounded to pixels.
    """
    height, width = image.shape[:2]
    left, top = (min(round(value * size), size - 1) for value, size in zip(box[:2], (width, height), strict=True))
    right, bottom = (round(value * size) for value, size in zip(box[2:], (width, height), strict=True))
    return image[top : max(bottom, top + 1), left : max(right, left + 1)]
