"""Inputs of inferencers: files and folders, images prepared by a config's pipeline, one that fails among others."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from mmengine.dataset import Compose

from florence_mm.errors import DataError, UsageError, user_sentence
from florence_mm.formats.image import WHITE, read_image
from florence_mm.registry import TRANSFORMS
from florence_mm.utils.files import lies_in, short_stem
from florence_mm.utils.progress import ProgressLog

from .setup import TestData, transform_name

Item = TypeVar('Item')

#: Errors that one input may cause in transforms and models. Others, such as AttributeError, are bugs, and a UsageError
#: is a mistake that every input would meet.
ITEM_ERRORS = (ValueError, RuntimeError, AssertionError, ArithmeticError, IndexError, MemoryError, cv2.error)


class Failed(str):
    """The sentence of an input that failed, in place of its prediction."""


def failure(error: Exception, name: str) -> Failed:
    """Describe in one sentence why an input failed.

    Args:
        error: what was raised.
        name: name of the input.

    Raises:
        Exception: ``error`` itself, if it is of another package and ``FLORENCE_MM_TRACEBACK`` is 1.
    """
    sentence = str(error) if isinstance(error, DataError) else user_sentence(error)
    if sentence is None:
        if os.environ.get('FLORENCE_MM_TRACEBACK') == '1':
            raise error
        said = str(error).strip().partition('\n')[0]
        sentence = (
            f'{name} cannot be processed ({type(error).__name__}{": " if said else ""}{said}); look at it, or set '
            'FLORENCE_MM_TRACEBACK=1 to see where'
        )
    return Failed(sentence if name in sentence else f'{name}: {sentence}')


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


def list_inputs(inputs: Any, suffixes: Sequence[str], what: str, memory: type | tuple[type, ...] = ()) -> list:
    """Expand files and folders to a list of files.

    Args:
        inputs: a path or a list of paths, or objects of the types ``memory``, which are kept.
        suffixes: suffixes of the files to list in folders and their subfolders.
        what: name of the inputs in messages, as in "images".
        memory: types of inputs that are not paths.

    Returns:
        files and objects; a folder without such files, or what is no file, is kept if there are others, as its own
        error is told when it is read.

    Raises:
        UsageError: nothing was given, something is no path, or only folders without such files.
    """
    if isinstance(inputs, (str, Path)) or memory and isinstance(inputs, memory):
        inputs = [inputs]
    found: list = []
    empty: list = []
    for item in _iterate(inputs, what):
        if memory and isinstance(item, memory):
            found.append(item)
            continue
        if not isinstance(item, (str, Path)) or not str(item) or '\0' in str(item):
            raise UsageError(f'{item!r} is among the {what} and is neither a file nor a folder; give their paths')
        inside = _files_inside(Path(item), suffixes) if _is_folder(Path(item)) else [item]
        found += inside or [item]
        empty += [] if inside else [item]
    if not found:
        raise UsageError(f'no {what} were given; give files or folders')
    if len(empty) == len(found):
        raise UsageError(f'the folder {empty[0]} has no {what} ({", ".join(suffixes)}); check the path')
    return found


def _iterate(inputs: Any, what: str) -> Iterable:
    if not isinstance(inputs, Iterable):
        raise UsageError(f'{what} are given as {inputs!r}; give a file, a folder or a list of them')
    return inputs


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # such as a name that is too long: reading it tells
        return False


def _files_inside(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(path for path in folder.rglob('*') if path.suffix.lower() in suffixes and _is_input(path))


def _is_input(path: Path) -> bool:
    # pipes, devices and folders with such a name are not files; a link to nothing is one whose file is missing
    try:
        return path.is_file() or path.is_symlink() and not path.exists()
    except OSError:  # such as a circle of links: reading it tells
        return True


def keep_originals(files: Sequence[str | Path], out_dir: str | Path) -> None:
    """Check that no input file is in the output folder, where it could be overwritten.

    Raises:
        UsageError: one is.
    """
    for file in files:
        if lies_in(file, out_dir):
            raise UsageError(
                f'{file} lies in the output folder, where what is written could take its place; '
                'give another output folder'
            )


def free_name(file: str | Path, suffix: str, taken: set[str]) -> str:
    """Name an output after the stem of ``file``, with a number if that is in ``taken``, and add it to ``taken``."""
    stem = short_stem(file, 'picture')
    name, number = f'{stem}{suffix}', 2
    while name in taken:
        name, number = f'{stem}_{number}{suffix}', number + 1
    taken.add(name)
    return name


Picture = str | Path | np.ndarray


class ReadPicture(NamedTuple):
    """An image that was read.

    Attributes:
        file: its file; None for an array.
        image: ``(H, W, 3)`` uint8 RGB; None if it cannot be read.
        error: the sentence that says why not.
    """

    file: str | Path | None
    image: np.ndarray | None
    error: str | None


SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


def list_pictures(images: Any) -> list[Picture]:
    """Expand files, folders and arrays to a list of files and arrays.

    Raises:
        UsageError: a folder has no images, or nothing was given.
    """
    return list_inputs(images, SUFFIXES, 'images', np.ndarray)


def read_picture(image: Picture) -> np.ndarray:
    """Read a file as ``(H, W, 3)`` uint8 RGB, rotated by its EXIF tag; an array is checked.

    Raises:
        DataError: the file is missing or damaged, or the array has another shape or type.
    """
    if not isinstance(image, np.ndarray):
        return read_image(str(image), WHITE)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise DataError(
            f'an array given as an image has shape {image.shape} and type {image.dtype}; expected (H, W, 3) uint8 RGB'
        )
    return image


def read_batches(images: Sequence[Picture], batch_size: int, skip_bad: bool, what: str) -> Iterator[list[ReadPicture]]:
    """Read images in batches, with a log of the progress if there are several.

    Args:
        images: files and arrays from :func:`list_pictures`.
        batch_size: images per batch; the last one may have fewer.
        skip_bad: yield the sentence of an unreadable image instead of raising its error.
        what: name of the work in the log, as in "detecting".

    Raises:
        DataError: an image cannot be read, and ``skip_bad`` is off.
    """
    progress = ProgressLog(what, len(images)) if len(images) > batch_size else None
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        yield [_read_or_error(image, skip_bad) for image in part]
        if progress is not None:
            progress.update(start + len(part))


def _read_or_error(image: Picture, skip_bad: bool) -> ReadPicture:
    file = None if isinstance(image, np.ndarray) else image
    (found,) = predict_each([image], lambda images: [read_picture(images[0])], picture_name, skip_bad)
    return ReadPicture(file, None, found) if isinstance(found, Failed) else ReadPicture(file, found, None)


def picture_name(image: Picture | ReadPicture) -> str:
    """Name of an image for messages: its file."""
    file = image.file if isinstance(image, ReadPicture) else image
    return f'the image {file}' if isinstance(file, (str, Path)) else 'an image given as an array'


def predict_readable(
    batch: Sequence[ReadPicture], predict: Callable[[Sequence[ReadPicture]], Sequence[Any]], skip_bad: bool
) -> Iterator[tuple[ReadPicture, Any]]:
    """Predict the readable images of a batch; yields each image with its prediction, or :class:`Failed`.

    Args:
        batch: images from :func:`read_batches`.
        predict: function from images to one prediction each.
        skip_bad: yield the sentence of an image that fails instead of raising its error.
    """
    found = iter(predict_each([one for one in batch if one.error is None], predict, picture_name, skip_bad))
    for one in batch:
        yield one, next(found) if one.error is None else Failed(one.error)


class InferencePipeline(TestData):
    """Test pipeline of a data set's config for images in memory.

    Transforms that load images or annotations are removed; their order of channels and dtype are kept.

    Args:
        dataset: config of the test data set, which may be wrapped.

    Raises:
        UsageError: there is no pipeline.
    """

    def __init__(self, dataset: Mapping[str, Any]) -> None:
        super().__init__(dataset, 'image')
        loaders = [t for t in self.pipeline if 'LoadImage' in transform_name(t)]
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
