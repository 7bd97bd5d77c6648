"""A model that answers tasks by writing, such as Florence-2, as a source of annotations for the data engine."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from florence_mm.curation.annotation_items import Item, checked, items_of
from florence_mm.errors import DataError, UsageError, shown
from florence_mm.formats.tasks import TaskRow
from florence_mm.language.task_list import find_task
from florence_mm.models.multimodal.protocol import Solved, TaskQuestion

from .annotation import check_tasks, digest, known_boxes
from .task_inferencer import TaskInferencer, check_question

_CAPTIONS = ('caption', 'detailed_caption', 'more_detailed_caption')
_TEXTS = ('ocr_with_region', 'region_ocr')  # whose regions are texts in the picture
_AT_ONCE = 16  # pictures, and questions


class TaskSpecialist:
    """A model that answers tasks by writing: annotations of any tasks.

    Tasks are answered one after the other, each knowing what those before it found. One that takes a region is asked
    about each known region, texts in the picture for ``region_ocr`` and others for the rest. One that takes a text is
    asked about ``texts``, and about those to which there are answers already; without ``texts`` also
    ``phrase_grounding`` about each known caption, and ``open_vocabulary_detection`` and ``referring_segmentation``
    about each known phrase.

    The score of a region is that of the model; the score of a text is the geometric mean of the probabilities of its
    tokens.

    Args:
        source, model, checkpoint, device: see :class:`~florence_mm.apis.annotation.DetectorSpecialist`.
        tasks: names of the tasks, or their public marks.
        texts: what tasks that take a text are asked about in each picture, such as class names; None: what is known.

    Raises:
        UsageError: there are no tasks, one is unknown, ``texts`` are none or not asked for, or the model does not solve
            tasks.
    """

    def __init__(
        self,
        source: str,
        model: str,
        checkpoint: str | None = None,
        tasks: Sequence[str] = (),
        texts: Sequence[str] | None = None,
        device: str | None = None,
    ) -> None:
        self.source, self.tasks = source, check_tasks(source, tasks)
        if not self.tasks:
            raise UsageError(f"{source}: tasks is empty; name those that are annotated, such as ['detection']")
        self._texts = None if texts is None else _checked_texts(source, self.tasks, texts)
        try:
            self._inferencer = TaskInferencer(model, checkpoint, device, batch_size=_AT_ONCE)
        except DataError:  # of its weights
            raise
        except ValueError as error:
            raise UsageError(f'{source}: {model} does not answer tasks: {error}') from None
        self.name = digest(self._inferencer, self.tasks, self._texts)

    def __call__(self, images: Sequence[np.ndarray], known: Sequence[Sequence[Item]]) -> list[list[Item]]:
        """Answer the tasks about each picture."""
        found: list[list[Item]] = []
        for first in range(0, len(images), _AT_ONCE):
            found += self._annotate(images[first : first + _AT_ONCE], known[first : first + _AT_ONCE])
        return found

    def _annotate(self, images: Sequence[np.ndarray], known: Sequence[Sequence[Item]]) -> list[list[Item]]:
        found: list[list[Item]] = [[] for _ in images]
        tokens = self._inferencer.encode(images)
        for task in self.tasks:
            asked = [
                question
                for n, (items, mine) in enumerate(zip(known, found, strict=True))
                for question in self._questions(n, task, [*items, *(item for item in mine if item.drop is None)])
            ]
            for first in range(0, len(asked), _AT_ONCE):
                part = asked[first : first + _AT_ONCE]
                for question, solved in zip(part, self._inferencer.ask(tokens, part), strict=True):
                    found[question.image] += map(checked, _items(question, solved))
        return found

    def _questions(self, image: int, task: str, known: Sequence[Item]) -> Iterator[TaskQuestion]:
        takes = find_task(task).takes
        if takes == 'nothing':
            yield TaskQuestion(image, task)
        elif takes == 'text':
            texts = [item.caption for item in known if item.task == task]
            texts += _texts_for(task, known) if self._texts is None else self._texts
            yield from (TaskQuestion(image, task, text) for text in dict.fromkeys(texts))
        else:
            places = [item for item in known if (item.task in _TEXTS) == (task == 'region_ocr')]
            yield from (TaskQuestion(image, task, region=box) for _, box in known_boxes([places]))


def _texts_for(task: str, known: Sequence[Item]) -> list[str]:
    """Texts that a task may be asked about, of all that is known of a picture."""
    if task == 'phrase_grounding':
        return [item.text for item in known if item.task in _CAPTIONS]
    return [item.text for item in known if item.task == 'phrase_grounding']


def _items(question: TaskQuestion, solved: Solved) -> list[Item]:
    """Annotations that an answer makes."""
    text, regions = solved.target.text, solved.target.regions
    if find_task(question.task).answers != 'text':
        return items_of(TaskRow('-', question.task, question.text or '', question.region, regions=regions))
    score = min(math.exp(solved.score), 1.0)
    row = TaskRow('-', question.task, region=question.region, answers=(text,))
    return [replace(item, score=score) for item in items_of(row)]


def _checked_texts(source: str, tasks: Sequence[str], texts: Sequence[str]) -> list[str]:
    taking = [task for task in tasks if find_task(task).takes == 'text']
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not texts:
        raise UsageError(f"{source}: texts={shown(texts)} must be a list of texts, such as ['a dog']; or leave it out")
    if not taking:
        raise UsageError(f'{source}: texts is given and no task of {", ".join(tasks)} takes a text; leave it out')
    for text in texts:
        if not isinstance(text, str):
            raise UsageError(f'{source}: texts has {shown(text)}, which is no text; give texts')
        check_question(taking[0], text, None)
    return list(texts)
