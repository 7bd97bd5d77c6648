"""The base of all inferencers: inputs of any kind, in batches, to one result each, as they are made."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from glob import has_magic
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose

from florence_mm.errors import UsageError, shown
from florence_mm.formats.image import WHITE, read_image
from florence_mm.registry import TRANSFORMS
from florence_mm.utils.progress import ProgressLog

from .inputs import (
    PICTURES,
    Failed,
    InputKind,
    NoInput,
    Picture,
    ReadInput,
    failure,
    files_of,
    free_name,
    from_memory,
    guard,
    is_web,
)
from .results import Output
from .setup import TestData, set_up_inference, transform_name

Item = TypeVar('Item')

#: Errors that one input may cause in transforms and models. Others, such as AttributeError, are bugs, and a UsageError
#: is a mistake that every input would meet.
ITEM_ERRORS = (ValueError, RuntimeError, AssertionError, ArithmeticError, IndexError, MemoryError, cv2.error)


class InferencePipeline(TestData):
    """Test pipeline of a data set's config for images in memory.

    Transforms that load images or annotations are removed; their order of channels and dtype are kept.

    Args:
        dataset: config of the test data set, which may be wrapped.

    Raises:
        UsageError: there is no pipeline, or it is for videos or reads images at a smaller scale.
    """

    def __init__(self, dataset: Mapping[str, Any]) -> None:
        super().__init__(dataset, 'image')
        names = [transform_name(t) for t in self.pipeline]
        if any(name.endswith('Decode') and 'Image' not in name for name in names):
            raise UsageError(f'the test pipeline ({", ".join(names)}) is for videos; give a config for images')
        loaders = [t for t in self.pipeline if 'LoadImage' in transform_name(t)]
        if any(t.get('scaled') for t in loaders):
            raise UsageError(
                'LoadImage(scaled=True) cannot be used here: inference is done on whole images; take scaled=False in '
                'the test pipeline'
            )
        # mmcv and mmdet read BGR, ours RGB
        self.bgr = bool(loaders) and transform_name(loaders[0]) != 'LoadImage'
        self.to_float32 = any(t.get('to_float32') for t in loaders)
        kept = [t for t in self.pipeline if t not in loaders and 'Annotations' not in transform_name(t)]
        self.transforms = Compose([TRANSFORMS.build(t) for t in kept])

    def __call__(self, image: np.ndarray, file: str | Path | None = None, **fields: Any) -> dict[str, Any]:
        """Apply the pipeline to an image ``(H, W, 3)`` uint8 RGB; returns the input of the model's data preprocessor.

        Args:
            image: the image.
            file: its file, if any.
            fields: further fields that the transforms need.
        """
        img = np.ascontiguousarray(image[..., ::-1]) if self.bgr else image.copy()
        if self.to_float32:
            img = img.astype(np.float32)
        shape = image.shape[:2]
        data = {'img': img, 'img_path': None if file is None else str(file), 'img_id': 0}
        data |= {'img_shape': shape, 'ori_shape': shape, 'height': shape[0], 'width': shape[1]}
        return self.transforms(data | fields)


class Inferencer:
    """Base of the inferencers: a model with its test pipeline, and the way of many inputs through them.

    Inputs are files, folders with their subfolders, globs (``'photos/*.jpg'``), URLs, arrays, pictures of Pillow, or a
    list of those. Those of a generator are taken one batch at a time and never all held. An input that fails has a
    result with its sentence, and does not end the others.

    Args:
        config (str | Path | Config): A config, its file, or the name of a model.
        checkpoint (str | Path | None): File or URL with all weights of the model; None: weights from ``init_cfg``.
        device (str | None): The device; None: the GPU if there is one.
        batch_size (int): Inputs per batch.
        precision (str): ``'fp32'``; ``'bf16'``, in which encoders compute about twice as fast, with scores that differ
            in the third digit; or ``'auto'``, bf16 where the processor has it, which the log says. ``'int8'`` is that
            of exported files.

    Raises:
        UsageError: config or checkpoint is missing, the config has no test pipeline for such inputs, or the processor
            has no such precision.
        ValueError: the checkpoint lacks weights of the model.
    """

    _kind: InputKind = PICTURES
    _pipeline: Callable[[Mapping[str, Any]], TestData] = InferencePipeline
    _scope = 'florence_mm'

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        batch_size: int = 1,
        precision: str = 'fp32',
    ) -> None:
        self.batch_size = batch_size
        self.pipeline, self.model, self.meta, self.device, self.cfg = set_up_inference(
            config, checkpoint, device, batch_size, self._pipeline, self._kind.name, self._scope, precision
        )

    @property
    def _at_once(self) -> int:
        """Number of inputs that are read together."""
        return self.batch_size

    def _stream(
        self,
        inputs: Any,
        predict: Callable[[Sequence[ReadInput]], Sequence[dict[str, Any]]],
        task: str | ProgressLog,
        skip_bad: bool,
        out: Output | None = None,
        draw: Callable[[ReadInput, dict[str, Any]], np.ndarray] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield the result of each input as it is made, written to its files before.

        Args:
            inputs: what the user gave.
            predict: function from read inputs to a dict each.
            task: the work in the log of the progress, as in "detecting"; or the log, whose unit is one input.
            skip_bad: give the sentence of an input that fails as its result, instead of raising its error.
            out: where results are written; None: nowhere.
            draw: function from an input and its result to a drawing, saved if ``out`` has a folder.

        Raises:
            UsageError: there are no inputs, or one would be overwritten.
        """
        listed: Iterable = list_inputs(inputs, self._kind)
        if out is None:
            return self._results(listed, predict, task, skip_bad, None)
        listed = guard(listed, out.check_inputs)

        def save(read: ReadInput, result: dict[str, Any]) -> None:
            out.save_drawing(draw(read, result), result, free_name(read.file or 'picture', '.png', taken))

        taken: set[str] = set()
        drawn = save if draw is not None and out.folder is not None else None
        return out.write(self._results(listed, predict, task, skip_bad, drawn))

    def _results(
        self,
        inputs: Iterable,
        predict: Callable[[Sequence[ReadInput]], Sequence[dict[str, Any]]],
        task: str | ProgressLog,
        skip_bad: bool,
        save: Callable[[ReadInput, dict[str, Any]], None] | None,
    ) -> Iterator[dict[str, Any]]:
        for batch in self._read_batches(inputs, task, skip_bad):
            readable = [one for one in batch if one.error is None]
            found = iter(predict_each(readable, predict, self._name, skip_bad))
            for one in batch:
                result = {'file': None if one.file is None else str(one.file)}
                said = next(found) if one.error is None else one.error
                if isinstance(said, str):
                    yield {**result, 'error': str(said)}
                    continue
                result |= said
                if save is not None:
                    save(one, result)
                yield result

    def _read_batches(self, inputs: Iterable, task: str | ProgressLog, skip_bad: bool) -> Iterator[list[ReadInput]]:
        """Read inputs in batches, with a log of the progress."""
        total = count_of(inputs)
        progress = None if total is not None and total <= self._at_once else task
        if isinstance(progress, str):
            progress = ProgressLog(progress, total)
        waiting, done = iter(inputs), 0
        while part := list(islice(waiting, self._at_once)):
            yield [self._read_or_error(item, skip_bad) for item in part]
            done += len(part)
            if progress is not None:
                progress.update(done)
        if not done:
            raise UsageError(f'no {self._kind.plural} were given; give files or folders')

    def _read_or_error(self, item: Any, skip_bad: bool) -> ReadInput:
        file = item if isinstance(item, (str, Path)) else None
        (found,) = predict_each([item], lambda items: [self._read(items[0])], self._name, skip_bad)
        return ReadInput(file, None, found) if isinstance(found, Failed) else ReadInput(file, found)

    def _read(self, item: Any) -> Any:
        """Read an input; raises DataError."""
        return read_picture(item)

    def _name(self, item: Any) -> str:
        """Name of an input for messages: its file."""
        file = item.file if isinstance(item, ReadInput) else item
        return f'the {self._kind.name} {file}' if isinstance(file, (str, Path)) else f'an {self._kind.name} in memory'


def predict_each(
    items: Sequence[Item], predict: Callable[[Sequence[Item]], Sequence[Any]], name: Callable[[Item], str], skip: bool
) -> list[Any]:
    """Predict a batch, and if that fails, each input alone, so that one input does not end the others.

    Args:
        items: the inputs.
        predict: function from inputs to one prediction each.
        name: name of an input for its sentence.
        skip: return :class:`Failed` in place of a prediction; otherwise the error of an input is raised.
    """
    if not items:
        return []
    try:
        return list(predict(items))
    except ITEM_ERRORS as error:
        if len(items) > 1:
            # inputs of different sizes may fit only alone
            return [found for item in items for found in predict_each([item], predict, name, skip)]
        if not skip:
            raise
        return [failure(error, name(items[0]))]


def list_inputs(inputs: Any, kind: InputKind) -> list | Iterator:
    """Expand folders and globs among inputs.

    Args:
        inputs: a path, an object of ``kind.memory``, a list of those, or a generator.
        kind: what is expected.

    Returns:
        a list of files and objects; a folder without such files, or what is no file, is kept if there are others, as
        its own error is told when it is read. For a generator an iterator, which expands as it is asked.

    Raises:
        UsageError: nothing was given, something is no path, or only folders without such files.
    """
    if isinstance(inputs, (str, Path, *kind.memory)):
        inputs = [inputs]
    if not isinstance(inputs, Iterable):
        raise UsageError(f'{kind.plural} are given as {shown(inputs)}; give a file, a folder or a list of them')
    if isinstance(inputs, Iterator):
        return (one for item in inputs for one in _expand_late(item, kind))
    found: list = []
    empty: list = []
    for item in inputs:
        inside = _expand(item, kind)
        found += inside or [item]
        empty += [] if inside else [item]
    if not found:
        raise UsageError(f'no {kind.plural} were given; give files or folders')
    if len(empty) == len(found):
        what = 'folder' if Path(empty[0]).is_dir() else 'pattern'
        raise UsageError(f'the {what} {empty[0]} has no {kind.plural} ({", ".join(kind.suffixes)}); check the path')
    return found


def _expand(item: Any, kind: InputKind) -> list:
    if isinstance(item, kind.memory):
        return [item]
    if not isinstance(item, (str, Path)) or not str(item) or '\0' in str(item):
        raise UsageError(
            f'{shown(item)} is among the {kind.plural} and is neither a file nor a folder; give their paths'
        )
    # most inputs are files: only folders and globs are listed
    return [item] if _is_one(item) else files_of(item, kind.suffixes)


def _is_one(item: str | Path) -> bool:
    """Whether a path is neither a folder nor a glob, whose wildcards count only if no file has that name."""
    try:
        return not Path(item).is_dir() and (not has_magic(str(item)) or is_web(item) or Path(item).exists())
    except OSError:  # such as a name that is too long: reading it tells
        return True


def _expand_late(item: Any, kind: InputKind) -> list:
    try:
        return _expand(item, kind) or [item]
    except UsageError as error:
        return [NoInput(str(error))]


def count_of(inputs: list | Iterable) -> int | None:
    """Number of inputs from :func:`list_inputs`; None for those of a generator."""
    return len(inputs) if isinstance(inputs, list) else None


def list_pictures(images: Any) -> list[Picture] | Iterator[Picture]:
    """Expand folders and globs among pictures, see :func:`list_inputs`."""
    return list_inputs(images, PICTURES)


def read_picture(image: Picture | NoInput) -> np.ndarray:
    """Read a file or URL as ``(H, W, 3)`` uint8 RGB, rotated by its EXIF tag; an array is checked.

    Raises:
        DataError: the file is missing or damaged, or the array has another shape or type.
    """
    return read_image(str(image), WHITE) if isinstance(image, (str, Path)) else from_memory(image)
