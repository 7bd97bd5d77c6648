"""Sources of annotations for the data engine: our inferencers as specialists, and UniCL as chooser of texts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from florence_mm.curation.annotation_items import Item
from florence_mm.curation.annotation_parsing import Parser
from florence_mm.curation.annotation_sources import crop
from florence_mm.curation.options import require
from florence_mm.errors import UsageError, shown
from florence_mm.language.task_list import find_task
from florence_mm.utils.numbers import is_finite, is_whole

from .base import Inferencer
from .classes import choose_classes
from .detection_inferencer import DetectionInferencer
from .embedding import embed_packed, embed_texts, fingerprint
from .image_inferencer import ImageInferencer
from .multimodal_inferencer import MultimodalInferencer
from .zoo import init_model

_Images = Sequence[np.ndarray]
_Known = Sequence[Sequence[Item]]
_Found = list[list[Item]]


def digest(inferencer: Inferencer, *options: Any) -> str:
    """Make the name of a model with what it is asked.

    Args:
        inferencer: the model.
        options: what it is asked, whose ``repr`` says all.
    """
    made = fingerprint(inferencer.model, inferencer.cfg, inferencer.pipeline.pipeline)
    return ' '.join([made, *map(repr, options)])


def _require_score(source: str, name: str, value: Any) -> None:
    require(f'{source}: {name}', value, is_finite(value) and 0 <= value <= 1, 'a number from 0 to 1')


def _fractions(boxes: Sequence[Sequence[float]], width: int, height: int) -> list[tuple[float, ...]]:
    """Boxes in pixels as fractions, cut at the edges; one with nothing inside is empty then, and dropped later."""
    whole = np.array(boxes, np.float64).reshape(-1, 4) / (width, height, width, height)
    return [tuple(box) for box in whole.clip(0, 1).tolist()]


def known_boxes(known: _Known) -> list[tuple[int, Any]]:
    """List the different boxes of known regions, each behind the number of its picture.

    Args:
        known: annotations of each picture.
    """
    return [
        (n, box)
        for n, items in enumerate(known)
        for box in dict.fromkeys(item.box for item in items if item.kind == 'region' and item.box is not None)
    ]


class DetectorSpecialist:
    """A detector with fixed classes, or of classes by name: the task ``detection``.

    Args:
        source: name of the source.
        model: name of a model, or its config file.
        checkpoint: its weights; None: those published for the name.
        classes: class names; None: all of the model.
        score_thr: least score of an object, from 0 to 1.
        device: where it computes; None: the GPU if there is one.

    Raises:
        UsageError: ``score_thr`` is out of range.
    """

    tasks = ('detection',)

    def __init__(
        self,
        source: str,
        model: str,
        checkpoint: str | None = None,
        classes: Sequence[str] | None = None,
        score_thr: float = 0.3,
        device: str | None = None,
    ) -> None:
        _require_score(source, 'score_thr', score_thr)
        self.source, self._classes, self._least = source, classes, score_thr
        self._inferencer = DetectionInferencer(model, checkpoint, device, batch_size=16)
        self.name = digest(self._inferencer, classes, score_thr)

    def __call__(self, images: _Images, known: _Known) -> _Found:
        """Detect objects."""
        results = self._inferencer(list(images), self._classes, self._least, skip_bad=False)
        return [_detected(result, 'detection', '') for result in results]


def _detected(result: Mapping[str, Any], task: str, caption: str) -> list[Item]:
    boxes = _fractions(result['boxes'], result['width'], result['height'])
    found = zip(boxes, result['labels'], result['scores'], strict=True)
    return [Item(task, label, box, score, caption=caption) for box, label, score in found]


class GroundingSpecialist:
    """A zero-shot detector that looks for the noun chunks of each known text: the task ``phrase_grounding``.

    Args:
        source, model, checkpoint, score_thr, device: see :class:`DetectorSpecialist`.
        parser: finds the noun chunks.
        most: noun chunks of a text that are looked for, the first ones.

    Raises:
        UsageError: there is no parser, a number is out of range, or the model has fixed classes.
    """

    tasks = ('phrase_grounding',)

    def __init__(
        self,
        source: str,
        model: str,
        checkpoint: str | None = None,
        score_thr: float = 0.3,
        most: int = 20,
        device: str | None = None,
        parser: Parser | None = None,
    ) -> None:
        if parser is None:
            raise UsageError(f"{source}: noun chunks need a parser; add parser='en_core_web_sm', or another model")
        _require_score(source, 'score_thr', score_thr)
        require(f'{source}: most', most, is_whole(most) and most >= 1, 'a whole number from 1')
        self.source, self._parser, self._least, self._most = source, parser, score_thr, most
        self._inferencer = DetectionInferencer(model, checkpoint, device)
        if not self._inferencer.zero_shot:
            raise UsageError(
                f'{source}: {model} has fixed classes, and phrases are free text; give a zero-shot detector'
            )
        self.name = digest(self._inferencer, parser.name, score_thr, most)

    def __call__(self, images: _Images, known: _Known) -> _Found:
        """Look for the noun chunks of the texts that are known of each picture."""
        found: _Found = []
        for image, items in zip(images, known, strict=True):
            captions = list(dict.fromkeys(item.text for item in items if item.kind == 'text'))
            mine: list[Item] = []
            for caption, parse in zip(captions, self._parser(captions) if captions else [], strict=True):
                phrases = list(dict.fromkeys(parse.chunks))[: self._most]
                if phrases:
                    (result,) = self._inferencer([image], phrases, self._least, skip_bad=False)
                    mine += _detected(result, 'phrase_grounding', caption)
            found.append(mine)
        return found


class CaptionSpecialist:
    """A model that writes: captions of pictures, or descriptions of the regions that are known.

    The score of a text is the geometric mean of the probabilities of its tokens.

    Args:
        source, model, checkpoint, device: see :class:`DetectorSpecialist`.
        task: ``'caption'``, ``'detailed_caption'``, ``'more_detailed_caption'`` or ``'region_description'``.

    Raises:
        UsageError: the task is another, or the model does not write.
    """

    def __init__(
        self, source: str, model: str, checkpoint: str | None = None, task: str = 'caption', device: str | None = None
    ) -> None:
        known = ('caption', 'detailed_caption', 'more_detailed_caption', 'region_description')
        if task not in known:
            raise UsageError(f'{source}: task={shown(task)} is none of {", ".join(known)}')
        self.source, self._task, self.tasks = source, task, (task,)
        self._inferencer = MultimodalInferencer(model, checkpoint, device, batch_size=16)
        try:
            self._inferencer.model.require(writes=True)
        except ValueError as error:
            raise UsageError(f'{source}: {model} is no captioner: {error}') from None
        self.name = digest(self._inferencer, task)

    def __call__(self, images: _Images, known: _Known) -> _Found:
        """Write a caption of each picture, or of each known region."""
        if self._task != 'region_description':
            return [[item] for item in self._write(list(images), [None] * len(images))]
        places = known_boxes(known)
        found: _Found = [[] for _ in images]
        written = self._write([crop(images[n], box) for n, box in places], [box for _, box in places])
        for (n, _), item in zip(places, written, strict=True):
            found[n].append(item)
        return found

    def _write(self, images: list[np.ndarray], boxes: Sequence[Any]) -> list[Item]:
        results = self._inferencer(images, caption=True, skip_bad=False) if images else []
        return [
            Item(self._task, result['caption'], box, min(math.exp(result['caption_score']), 1.0))
            for result, box in zip(results, boxes, strict=True)
        ]


class RegionClassifier:
    """A two-tower model that classifies the crops of known regions: the task ``detection`` at the same boxes.

    Args:
        source, model, checkpoint, device: see :class:`DetectorSpecialist`.
        classes: class names.
        least: least probability of the best class, from 0 to 1.

    Raises:
        UsageError: there are no classes, or ``least`` is out of range.
    """

    tasks = ('detection',)

    def __init__(
        self,
        source: str,
        model: str,
        checkpoint: str | None = None,
        classes: Sequence[str] = (),
        least: float = 0.0,
        device: str | None = None,
    ) -> None:
        if not classes:
            raise UsageError(f'{source}: classes is empty; name those that regions are told apart by')
        _require_score(source, 'least', least)
        self.source, self._classes, self._least = source, list(classes), least
        self._inferencer = ImageInferencer(model, checkpoint, device, batch_size=64)
        choose_classes(self._inferencer.model, self._inferencer.known_classes, self._classes, None)
        self.name = digest(self._inferencer, self._classes, least)

    def __call__(self, images: _Images, known: _Known) -> _Found:
        """Classify the crops of known regions, equal boxes once."""
        places = known_boxes(known)
        found: _Found = [[] for _ in images]
        if places:
            crops = [crop(images[n], box) for n, box in places]
            for (n, box), result in zip(
                places, self._inferencer(crops, self._classes, top=1, skip_bad=False), strict=True
            ):
                if result['scores'][0] >= self._least:
                    found[n].append(Item('detection', result['labels'][0], box, result['scores'][0]))
        return found


class TowerChooser:
    """A two-tower model that compares crops with texts (:class:`florence_mm.curation.annotation_sources.TextChooser`).

    Args:
        model, checkpoint, device: see :class:`DetectorSpecialist`.

    Raises:
        UsageError: the model has no test pipeline.
    """

    def __init__(self, model: str, checkpoint: str | None = None, device: str | None = None) -> None:
        self._loaded = init_model(model, checkpoint, device)
        if self._loaded.pipeline is None:
            raise UsageError(f'{self._loaded.name} has no test_dataloader, which says how to prepare pictures')
        self.name = fingerprint(self._loaded.model, self._loaded.cfg, self._loaded.pipeline.pipeline)

    def __call__(self, crops: Sequence[np.ndarray], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Compute the cosine of each crop and each of its texts."""
        different = list(dict.fromkeys(text for several in texts for text in several))
        packed = self._loaded.preprocess(list(crops))
        images = embed_packed(self._loaded.model, self._loaded.cfg, packed)  # (N, D)
        rows = dict(zip(different, embed_texts(self._loaded.model, different), strict=True))
        return [[float(image @ rows[text]) for text in several] for image, several in zip(images, texts, strict=True)]


def check_tasks(source: str, tasks: Any) -> tuple[str, ...]:
    """Check the tasks that a specialist says it answers.

    Args:
        source: name of the specialist.
        tasks: its attribute ``tasks``.

    Raises:
        UsageError: they are not names of tasks.
    """
    if isinstance(tasks, str) or not isinstance(tasks, Sequence):
        raise UsageError(f'{source}: tasks is {shown(tasks)}; give a tuple of names of tasks')
    try:
        return tuple(find_task(str(task)).name for task in tasks)
    except ValueError as error:
        raise UsageError(f'{source}: {error}') from None
