"""From a user's pictures to what a model's config expects."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose

from florence_mm.errors import DataError
from florence_mm.formats.image import WHITE, read_image
from florence_mm.registry import TRANSFORMS

from .inputs import list_inputs
from .setup import TestData, transform_name

Picture = str | Path | np.ndarray
#: A file (None for an array), and the picture ``(H, W, 3)`` uint8 RGB or the sentence that says why there is none.
ReadPicture = tuple[str | Path | None, np.ndarray | None, str | None]

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


def list_pictures(images: Any) -> list[Picture]:
    """Files, folders and arrays, or a list of them, as a list of files and arrays.

    Raises:
        UsageError: a folder without pictures, or nothing at all.
    """
    return list_inputs(images, SUFFIXES, 'pictures', np.ndarray)


def read_picture(picture: Picture) -> np.ndarray:
    """A file or an array as ``(H, W, 3)`` uint8 RGB, upright.

    Raises:
        DataError: the file is missing or no whole image, or the array has another shape or type.
    """
    if not isinstance(picture, np.ndarray):
        return read_image(str(picture), WHITE)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
        raise DataError(
            f'an array given as a picture has shape {picture.shape} and type {picture.dtype}; '
            'expected (H, W, 3) uint8 RGB'
        )
    return picture


def read_batches(pictures: Sequence[Picture], batch_size: int, skip_bad: bool) -> Iterator[list[ReadPicture]]:
    """Pictures in batches, the last one with what is left.

    Args:
        pictures: of :func:`list_pictures`.
        batch_size: pictures in a batch.
        skip_bad: give the sentence of a picture that cannot be read in its place.

    Raises:
        DataError: a picture cannot be read, and ``skip_bad`` is off.
    """
    batch: list[ReadPicture] = []
    for picture in pictures:
        file = None if isinstance(picture, np.ndarray) else picture
        try:
            batch.append((file, read_picture(picture), None))
        except DataError as error:
            if not skip_bad:
                raise
            batch.append((file, None, str(error)))
        if len(batch) == batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


class InferencePipeline(TestData):
    """The test pipeline of a data set's config, fed with pictures in memory.

    Transforms that read the image are taken out, with the order of channels they give noted, and those that read
    annotations.

    Args:
        dataset: config of the test data; wrappers are gone through.

    Raises:
        UsageError: there is no pipeline.
    """

    def __init__(self, dataset: Mapping[str, Any]) -> None:
        super().__init__(dataset, 'picture')
        loaders = [t for t in self.pipeline if 'LoadImage' in transform_name(t)]
        # mmcv and mmdet read BGR, ours RGB
        self.bgr = bool(loaders) and transform_name(loaders[0]) != 'LoadImage'
        self.to_float32 = any(t.get('to_float32') for t in loaders)
        kept = [t for t in self.pipeline if t not in loaders and 'Annotations' not in transform_name(t)]
        self.transforms = Compose([TRANSFORMS.build(t) for t in kept])

    def __call__(self, image: np.ndarray, file: str | Path | None = None, **fields: Any) -> dict[str, Any]:
        """One picture ``(H, W, 3)`` uint8 RGB as the model's data preprocessor takes it.

        Args:
            image: the picture.
            file: where it lies.
            fields: what the pipeline's transforms ask for beside a picture.
        """
        img = np.ascontiguousarray(image[..., ::-1]) if self.bgr else image.copy()
        if self.to_float32:
            img = img.astype(np.float32)
        shape = image.shape[:2]
        data = {'img': img, 'img_path': None if file is None else str(file), 'img_id': 0}
        data |= {'img_shape': shape, 'ori_shape': shape, 'height': shape[0], 'width': shape[1]}
        return self.transforms(data | fields)
