"""Inputs of inferencers: files and folders, images prepared by a config's pipeline, class names."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.dataset import Compose
from torch import nn

from florence_mm.errors import DataError, UsageError
from florence_mm.formats.image import WHITE, read_image
from florence_mm.models.protocol import ZeroShotModel
from florence_mm.registry import TRANSFORMS
from florence_mm.utils.files import lies_in, short_stem
from florence_mm.utils.nearest import nearest
from florence_mm.utils.progress import ProgressLog

from .results import Failed, predict_each
from .setup import TestData, transform_name


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


def parse_class_names(classes: str | Sequence[str]) -> list[str]:
    """Split class names at commas, strip them and drop repetitions; a list of names is only cleaned.

    Raises:
        UsageError: there is no name.
    """
    names = classes.split(',') if isinstance(classes, str) else classes
    if isinstance(names, Mapping) or not isinstance(names, Iterable) or not all(isinstance(n, str) for n in names):
        raise UsageError(f'classes={classes!r} must be names with commas between, or a list of names')
    names = list(dict.fromkeys(' '.join(name.split()) for name in names if name.strip()))
    if not names:
        raise UsageError(f'classes={classes!r} has no class name; give names with commas between, as in "cat, dog"')
    return names


def choose_classes(
    model: nn.Module, known: list[str], classes: str | Sequence[str] | None, templates: str | Sequence[str] | None
) -> tuple[list[str], list[str] | None]:
    """Set the classes of a zero-shot model, or choose those of a model with fixed classes to report.

    Args:
        model: the model.
        known: names of the labels of a model with fixed classes.
        classes: the requested classes, see :func:`parse_class_names`; None: all.
        templates: prompt templates for a zero-shot model; None: the model's.

        Returns:
            the name of each label, and the names to report, None for all.

    Raises:
        UsageError: a zero-shot model has no classes, or a model with fixed classes lacks one or got templates.
    """
    if isinstance(model, ZeroShotModel):
        if classes is not None or templates is not None and model.class_names:
            model.set_classes(parse_class_names(list(model.class_names) if classes is None else classes), templates)
        names = list(model.class_names)
        if not names:
            raise UsageError('a zero-shot model needs class names; give some, as in classes="cat, dog, bench"')
        return names, None
    if templates is not None:
        raise UsageError(
            f'templates={templates!r} are for the prompts of a zero-shot model, and this one has fixed classes; leave '
            'them out'
        )
    if classes is None:
        return known, None
    wanted = parse_class_names(classes)
    for name in wanted:
        if name not in known:
            near = nearest(name, known)
            hint = f'did you mean {near!r}?' if near else f'it has {", ".join(known[:20]) or "no names for them"}'
            raise UsageError(f'this model has fixed classes and {name!r} is none of them; {hint}')
    return known, wanted


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
