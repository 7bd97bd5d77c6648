"""Loading the image of a sample with any package's transform; an unusable file is an error that names it."""

from collections.abc import Callable, Sequence
from typing import Any

from florence_mm.errors import DataError
from florence_mm.formats.image import decode_file, is_cut_off, read_file

from .transforms.loading import LoadImage


def load_checked(
    transforms: Sequence[Callable], sample: dict, where: str, size: tuple[float, float] | None = None
) -> tuple[Any, int]:
    """Apply the transforms of a pipeline up to the one that loads the image, which adds ``img``.

    Loaders of other packages decode some files that end too early as if they were whole, and fail on others without
    naming them. Such files are errors here, whichever transform loads them.

    Args:
        transforms (Sequence[Callable]): The pipeline.
        sample (dict): What enters it, with ``img_path``.
        where (str): The sample in messages, such as "train.json, image 7".
        size (tuple | None): Height and width that the image must have; None: any.

    Returns:
        tuple: The sample, or None if a transform returned None; and the number of transforms applied, which is all of
        them if none loads an image.

    Raises:
        DataError: the file is missing, empty, cut off or no image, or the image has another size.
    """
    for number, transform in enumerate(transforms, 1):
        if isinstance(transform, LoadImage):
            sample = transform({**sample, 'source': where})
        else:
            sample = _foreign(transform, sample, where)
        if sample is None:
            return None, number
        if isinstance(sample, dict) and 'img' in sample:
            _require_size(sample, where, size)
            return sample, number
    return sample, len(transforms)


def _foreign(transform: Callable, sample: dict, where: str) -> Any:
    """Apply a transform of another package; if it fails for the image, our reader says what is wrong with the file."""
    path, local = sample.get('img_path'), getattr(transform, 'backend_args', None) is None
    try:
        loaded = transform(sample)
    except Exception:
        if isinstance(path, str) and local:
            decode_file(read_file(path, None, f'{where}: '), path, None, f'{where}: ')
        raise  # the file is whole, so the fault is the transform's
    if isinstance(path, str) and local and (loaded is None or 'img' in loaded):
        data = read_file(path, None, f'{where}: ')
        if not data or is_cut_off(data):
            decode_file(data, path, None, f'{where}: ')
    return loaded


def _require_size(sample: dict, where: str, size: tuple[float, float] | None) -> None:
    height, width = sample['img'].shape[:2]
    if size is not None and (height, width) != tuple(size):
        raise DataError(
            f'{where}: the image {sample["img_path"]} is {width}x{height} pixels large when upright, but the file says '
            f'{size[1]:g}x{size[0]:g}, so its boxes are not where they should be; correct width, height and boxes, or '
            'restore the image'
        )
