"""Inferencer for models that solve tasks by writing, such as Florence-2: detection, phrases, polygons, texts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from florence_mm.errors import UsageError, shown
from florence_mm.language.regions import Box, Region, Target, check_box
from florence_mm.language.spacing import join_punctuation
from florence_mm.language.tasks import TaskFormat, find_task
from florence_mm.models.multimodal.protocol import Solved, TaskQuestion, VisionLanguage, unwrap_reranker
from florence_mm.utils.numbers import is_finite
from florence_mm.visualization.regions import draw_regions
from florence_mm.visualization.texts import Line, draw_texts

from .base import Inferencer
from .inputs import Picture, ReadInput
from .results import Output
from .setup import wrong_kind

_FILE = 'tasks.json'


class TaskInferencer(Inferencer):
    """Solve tasks about images with a trained model that writes their answers.

    ::

        inferencer = TaskInferencer('configs/...py', 'checkpoint.pth')
        results = inferencer('photos/', 'detection', out_dir='drawn')
        results = inferencer('photo.jpg', 'phrase_grounding', text='a dog and its ball')
        results = inferencer('photo.jpg', 'region_category', region=(10, 20, 300, 400))

    Args:
        config (str | Path | Config): Config of a model with a head that solves tasks; the pipeline is that of
            ``test_dataloader``.
        checkpoint (str | Path | None): File or URL with all weights of the model; None: weights from ``init_cfg``.
        device (str | None): The device; None: the GPU if there is one.
        batch_size (int): Images per batch.
        precision (str): Precision, see :class:`Inferencer`.

    Raises:
        UsageError: config or checkpoint is missing, or the config has no such model or no test pipeline.
        ValueError: the checkpoint lacks weights of the model, or it has no head that solves tasks.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        batch_size: int = 1,
        precision: str = 'fp32',
    ) -> None:
        super().__init__(config, checkpoint, device, batch_size, precision)
        self.model = unwrap_reranker(self.model)
        if not isinstance(self.model, VisionLanguage):
            raise wrong_kind(self.cfg, self.model, 'a vision-language model that solves tasks, such as Florence2')
        self.model.require(solves=True)

    def __call__(
        self,
        images: Picture | Iterable[Picture],
        task: str,
        text: str | None = None,
        region: Sequence[float] | None = None,
        out: str | Path | None = None,
        skip_bad: bool = True,
        out_dir: str | Path | None = None,
    ) -> list[dict[str, Any]]:
        """Solve a task about images.

        Args:
            images: Files, folders (with subfolders, sorted), globs, URLs, arrays ``(H, W, 3)`` uint8 RGB, pictures of
                Pillow, a list of those, or a generator.
            task: Name of a task or its public mark: :data:`florence_mm.language.tasks.TASKS`.
            text: The text that a task takes: a caption, a phrase, class names.
            region: The box that a task takes, ``(x0, y0, x1, y1)`` in pixels of each image.
            out: JSON file for the results; None writes none. Until the end, finished results are lines of
                ``<out>.part``.
            skip_bad: Continue after an image that cannot be read or processed, whose result has ``error`` instead of
                the other keys; False raises its error.
            out_dir: Folder for a drawing of each image with the answer, and without ``out`` for ``tasks.json``.

        Returns:
            One dict per image, in order: ``file`` (None for one in memory), ``width``, ``height``, ``task``, what was
            given as ``text`` or ``region``, and the answer: ``answer``, a text, or ``regions``, a dict each with
            ``text``, ``score`` (from 0 to 1), and ``box`` (``[x0, y0, x1, y1]``), ``quad`` (four corners) or
            ``polygons`` (of each part the corners) in pixels; ``written``, what the model wrote, its ``score``, the
            mean log-probability of its tokens, and ``faults``, sentences about what did not parse. With ``out_dir``
            also ``picture``, the name of the drawing. Of an image that failed: ``file`` and ``error``, a sentence.

        Raises:
            UsageError: there are no images, the task is unknown, lacks what it takes or got something else, or ``out``
                is one of the images.
            DataError: an image cannot be read, and ``skip_bad`` is off.
        """
        return list(self.stream(images, task, text, region, out, skip_bad, out_dir))

    def stream(
        self,
        images: Picture | Iterable[Picture],
        task: str,
        text: str | None = None,
        region: Sequence[float] | None = None,
        out: str | Path | None = None,
        skip_bad: bool = True,
        out_dir: str | Path | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Solve a task, and yield each result as it is made, for images without end; see :meth:`__call__`."""
        name, region = check_question(task, text, region)
        solve = partial(self._solve, task=name, text=text, region=region)
        if out is None and out_dir is not None:
            out = Path(out_dir) / _FILE
        written = None if out is None else Output(out, out_dir, {}, 'images')
        return self._stream(images, solve, f'solving {name}', skip_bad, written, draw_answer)

    @torch.no_grad()
    def encode(self, images: Sequence[np.ndarray], files: Sequence[str | Path | None] | None = None) -> Tensor:
        """Encode images for :meth:`ask`.

        Args:
            images: ``(H, W, 3)`` uint8 RGB.
            files: their files, if any.

        Returns:
            image tokens ``(U, S, C)``.
        """
        known = [None] * len(images) if files is None else files
        packed = [self.pipeline(image, file, **_unasked()) for image, file in zip(images, known, strict=True)]
        inputs = self.model.data_preprocessor({'inputs': [one['inputs'] for one in packed]}, False)['inputs']
        return self.model.encode_image(inputs)

    @torch.no_grad()
    def ask(self, image_tokens: Tensor, questions: Sequence[TaskQuestion]) -> list[Solved]:
        """Solve tasks about encoded images, several about each if need be, with regions as fractions.

        Args:
            image_tokens: ``(U, S, C)`` of :meth:`encode`.
            questions: the tasks, with the numbers of their images.

        Returns:
            an answer to each, its texts with the usual spacing; ``text`` is as it was written.
        """
        return [replace(one, target=_spaced(one.target)) for one in self.model.solve(image_tokens, questions)]

    def _solve(
        self, images: Sequence[ReadInput], task: str, text: str | None, region: Box | None
    ) -> list[dict[str, Any]]:
        """Predict for a batch of images; returns a dict per image."""
        sizes = [one.image.shape[1::-1] for one in images]
        boxes = [None if region is None else _as_fractions(region, size) for size in sizes]
        questions = [TaskQuestion(number, task, text, box) for number, box in enumerate(boxes)]
        solved = self.ask(self.encode([one.image for one in images], [one.file for one in images]), questions)
        results = []
        for (width, height), one in zip(sizes, solved, strict=True):
            result: dict[str, Any] = {'width': width, 'height': height, 'task': task}
            result |= {} if text is None else {'text': text}
            result |= {} if region is None else {'region': list(region)}
            if find_task(task).answers == 'text':
                result['answer'] = one.target.text
            else:
                result['regions'] = [_plain(found, width, height) for found in one.target.regions]
            result |= {'written': one.text, 'score': round(one.score, 4), 'faults': list(one.faults)}
            results.append(result)
        return results


def check_question(task: str, text: str | None, region: Sequence[float] | None) -> tuple[str, Box | None]:
    """Check what is asked; returns the name of the task, and the region.

    Raises:
        UsageError: the task is unknown, lacks what it takes or got something else.
    """
    if not isinstance(task, str):
        raise UsageError(f'the task is {shown(task)}; give the name of one, such as detection')
    if text is not None and not isinstance(text, str):
        raise UsageError(f'the text given with {task} is {shown(text)}; give a text')
    if region is not None:
        numbers = isinstance(region, Sequence) and not isinstance(region, str) and len(region) == 4
        if not numbers or not all(map(is_finite, region)) or not (region[0] < region[2] and region[1] < region[3]):
            raise UsageError(f'the region is {shown(region)}; give x0 y0 x1 y1 in pixels, with x0 < x1 and y0 < y1')
        region = tuple(map(float, region))
    try:
        TaskFormat().prompt(task, text, None if region is None else (0.0, 0.0, 1.0, 1.0))
        return find_task(task).name, region
    except ValueError as error:
        raise UsageError(str(error)) from None


def _unasked() -> dict[str, Any]:
    """Fields of a sample that ``PackTask`` of a test pipeline needs, for a task that takes nothing."""
    return {'task': 'caption', 'prompt_text': '', 'prompt_region': None}


def _as_fractions(region: Box, size: tuple[int, int]) -> Box:
    """A box in pixels of an image of (width, height) as fractions.

    Raises:
        ValueError: it is outside the image.
    """
    (x0, y0, x1, y1), (width, height) = region, size
    try:
        return check_box((x0 / width, y0 / height, x1 / width, y1 / height))
    except ValueError:
        raise ValueError(
            f'the region {shown(region)} is outside the picture of {width} x {height} pixels; give one within it'
        ) from None


def _spaced(target: Target) -> Target:
    """What an answer says, without the spaces that a tokenizer leaves before punctuation."""
    regions = tuple(replace(region, text=join_punctuation(region.text)) for region in target.regions)
    return Target(join_punctuation(target.text), regions)


def _plain(region: Region, width: int, height: int) -> dict[str, Any]:
    """A region as plain values, in pixels."""

    def points(corners: Iterable[tuple[float, float]]) -> list[list[float]]:
        return [[round(x * width, 2), round(y * height, 2)] for x, y in corners]

    found: dict[str, Any] = {'text': region.text}
    if region.score is not None:
        found['score'] = round(region.score, 4)
    if region.boxes:  # one, as each box is a region of its own
        ((x0, y0, x1, y1),) = region.boxes
        found['box'] = [value for point in points([(x0, y0), (x1, y1)]) for value in point]
    if region.quad is not None:
        found['quad'] = points(region.quad)
    if region.polygons:
        found['polygons'] = [points(part) for part in region.polygons]
    return found


def draw_answer(read: ReadInput, result: Mapping[str, Any]) -> np.ndarray:
    """Draw an image with the answer of its result: regions on it, a text below it."""
    asked = result['task'].replace('_', ' ') + (f': {result["text"]}' if 'text' in result else '')
    regions = result.get('regions', [])
    image = draw_regions(read.image, regions, result.get('region'))
    if regions:
        return image
    return draw_texts(image, [Line(asked, bold=True), Line(result.get('answer') or 'nothing')])
