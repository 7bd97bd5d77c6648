"""Loading the image or video of a sample with any package's transforms; an unusable file is an error that names it."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from mmcv.transforms import Compose

from florence_mm.errors import DataError, UsageError
from florence_mm.formats.image import decode_file, is_cut_off, read_file
from florence_mm.formats.video import open_video
from florence_mm.utils.progress import ProgressLog
from florence_mm.utils.reading import read_bytes

from .skipping import SkipCounter
from .transforms.loading import LoadImage
from .transforms.resizing import RandomResizedCrop
from .transforms.video import VideoDecode, VideoInit

Row = TypeVar('Row')


def load_checked(
    transforms: Sequence[Callable], sample: dict, where: str, size: tuple[float, float] | None = None
) -> tuple[Any, int]:
    """Apply the transforms of a pipeline up to the one that loads the image (adds ``img``) or frames (``imgs``).

    Loaders of other packages decode some files that end too early as if they were whole, and fail on others without
    naming them. Such files are errors here, whichever transform loads them.

    Args:
        transforms (Sequence[Callable]): The pipeline.
        sample (dict): What enters it, with ``img_path``, or ``filename`` of a video.
        where (str): The sample in messages, such as "train.json, image 7".
        size (tuple | None): Height and width that the image must have; None: any.

    Returns:
        tuple: The sample, or None if a transform returned None; and the number of transforms applied, which is all of
        them if none loads an image or video.

    Raises:
        DataError: the file is missing, empty, cut off or no image or video, or the image has another size.
    """
    for number, transform in enumerate(transforms, 1):
        if isinstance(transform, (LoadImage, VideoInit, VideoDecode)) or 'undecoded' in sample:
            sample = transform({**sample, 'source': where})
        else:
            sample = _foreign(transform, sample, where)
        if sample is None:
            return None, number
        if is_loaded(sample):
            if 'img' in sample:
                _require_size(sample, where, size)
            return sample, number
    return sample, len(transforms)


def run_pipeline(
    transforms: Sequence[Callable], sample: dict, where: str, size: tuple[float, float] | None = None
) -> Any:
    """Apply a pipeline, with the checks of :func:`load_checked`, whose arguments and errors these are.

    Returns:
        Any: the sample, or None if a transform returned None.
    """
    data, done = load_checked(transforms, sample, where, size)
    for transform in transforms[done:]:
        if data is None:
            break
        data = transform(data)
    return data


def is_loaded(sample: Any) -> bool:
    """Whether a sample has its image or frames."""
    return isinstance(sample, dict) and ('img' in sample or 'imgs' in sample)


def check_scaled(transforms: Sequence[Callable], wrong: str | None = None) -> None:
    """Check that ``LoadImage(scaled=True)`` of a pipeline gives right values: directly before a random crop.

    Args:
        transforms: the pipeline.
        wrong: why the data set cannot have it at all, as in "in test mode ..."; None: it can.

    Raises:
        UsageError: it is elsewhere, or the data set cannot have it.
    """
    for number, transform in enumerate(transforms):
        for inner in _sequences_in(transform):
            check_scaled(inner, wrong)
        if not isinstance(transform, LoadImage) or not transform.scaled:
            continue
        following = transforms[number + 1] if number + 1 < len(transforms) else None
        if wrong is None and not isinstance(following, RandomResizedCrop):
            name = 'none' if following is None else type(following).__name__
            wrong = f'the next step must be florence_mm.RandomResizedCrop, which decodes the image, and is {name}'
        if wrong is not None:
            raise UsageError(f'LoadImage(scaled=True) cannot be used here: {wrong}; take scaled=False')


def check_pipelines(dataset: Any) -> None:
    """Apply :func:`check_scaled` to the pipelines of a data set of any package, and of those that it wraps.

    Raises:
        UsageError: see there.
    """
    for inner in getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]:
        if inner is not None:
            check_pipelines(inner)
    check_scaled(getattr(getattr(dataset, 'pipeline', None), 'transforms', ()))


def _sequences_in(transform: Callable) -> list[Sequence[Callable]]:
    """Pipelines inside a wrapper of mmcv, such as those that RandomChoice chooses from."""
    inner = getattr(transform, 'transforms', None)
    if isinstance(inner, Compose):
        return [inner.transforms]
    if not isinstance(inner, Sequence):
        return []
    return [one.transforms for one in inner if isinstance(one, Compose)] or [inner]


def readable_rows(
    rows: Sequence[Row], sample_of: Callable[[Row], dict], transforms: Sequence[Callable], skips: SkipCounter
) -> list[Row]:
    """Read the file of every row, and leave unreadable ones out, counted.

    Args:
        rows (Sequence): The rows.
        sample_of (Callable): What enters the pipeline for a row, with ``source``.
        transforms (Sequence[Callable]): The pipeline, of which only the steps up to the loading are applied.
        skips (SkipCounter): Counts.

    Raises:
        DataError: more rows are unusable than the counter allows.
        ValueError: no transform loads an image or a video.
    """
    progress = ProgressLog(f'checking the files of {skips.name}', len(rows))
    readable = []
    errors: dict[str, DataError | None] = {}  # several rows may share a file, which is read once
    for number, row in enumerate(rows):
        try:
            sample = sample_of(row)
        except DataError as error:
            skips.add_image(number, error)
            continue
        path = sample.get('filename', sample.get('img_path'))
        if path not in errors:
            errors[path] = _error_of(transforms, sample)
        if errors[path] is None:
            readable.append(row)
        else:
            skips.add_image(number, errors[path])
        progress.update(number + 1)
    return readable


def _error_of(transforms: Sequence[Callable], sample: dict) -> DataError | None:
    try:
        sample, _ = load_checked(transforms, sample, sample['source'])
    except DataError as error:
        return error
    if not is_loaded(sample):
        raise ValueError(
            'skip_bad in test mode reads every file, but no transform of the pipeline loads one; it needs '
            'florence_mm.LoadImage, florence_mm.VideoInit and VideoDecode, or the like'
        )
    return None


def _foreign(transform: Callable, sample: dict, where: str) -> Any:
    """Apply a transform of another package; if it fails for the file, our reader says what is wrong with the file."""
    video, backend = sample.get('filename'), getattr(transform, 'backend_args', None)
    path = sample.get('img_path') if video is None else video
    checked = isinstance(path, str)
    try:
        loaded = transform(sample)
    except DataError:
        raise
    except Exception:
        if checked and video is None:
            decode_file(read_file(path, backend, f'{where}: '), path, None, f'{where}: ')
        elif checked:
            _decode_some(path, backend, where)
        raise  # the file is whole, so the fault is the transform's
    if checked and video is None and (loaded is None or 'img' in loaded):
        data = read_file(path, backend, f'{where}: ')
        if not data or is_cut_off(data):
            decode_file(data, path, None, f'{where}: ')
    return loaded


def _decode_some(path: str, backend: dict | None, where: str) -> None:
    """Open a video and decode frames from its beginning to its end."""
    data = read_bytes(path, backend, f'{where}: ', 'video')
    try:
        reader = open_video(data, path)
        reader.read(np.linspace(0, len(reader) - 1, 8).astype(int))
        reader.close()
    except DataError as error:
        raise DataError(f'{where}: {error}') from None


def _require_size(sample: dict, where: str, size: tuple[float, float] | None) -> None:
    height, width = sample['img'].shape[:2]
    if size is not None and (height, width) != tuple(size):
        raise DataError(
            f'{where}: the image {sample["img_path"]} is {width}x{height} pixels large when upright, but the file says '
            f'{size[1]:g}x{size[0]:g}, so its boxes are not where they should be; correct width, height and boxes, or '
            'restore the image'
        )
