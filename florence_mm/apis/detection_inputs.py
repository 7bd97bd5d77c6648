"""From a user's pictures to what a detector's config expects."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import Compose

from florence_mm.datasets.errors import DataError
from florence_mm.datasets.transforms.loading import LoadImage
from florence_mm.engine.errors import UsageError
from florence_mm.registry import DATASETS, TRANSFORMS

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


def list_pictures(images: Any) -> list[str | Path | np.ndarray]:
    """Files, folders and arrays, or a list of them, as a list of files and arrays.

    Raises:
        UsageError: a folder without pictures, or nothing at all.
    """
    if isinstance(images, (str, Path, np.ndarray)):
        images = [images]
    pictures: list[str | Path | np.ndarray] = []
    for item in images:
        if isinstance(item, np.ndarray) or not Path(item).is_dir():
            pictures.append(item)
            continue
        inside = sorted(path for path in Path(item).rglob('*') if path.suffix.lower() in SUFFIXES)
        if not inside:
            raise UsageError(f'the folder {item} has no pictures ({", ".join(SUFFIXES)}); check the path')
        pictures += inside
    if not pictures:
        raise UsageError('no pictures were given; give files, folders or arrays')
    return pictures


def read_picture(picture: str | Path | np.ndarray) -> np.ndarray:
    """A file or an array as ``(H, W, 3)`` uint8 RGB, upright.

    Raises:
        DataError: the file is missing or no whole image, or the array has another shape or type.
    """
    if not isinstance(picture, np.ndarray):
        return LoadImage()({'img_path': str(picture)})['img']
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
        raise DataError(
            f'an array given as a picture has shape {picture.shape} and type {picture.dtype}; '
            'expected (H, W, 3) uint8 RGB'
        )
    return picture


class InferencePipeline:
    """The test pipeline of a data set's config, fed with pictures in memory.

    Transforms that read the image are taken out, with the order of channels they give noted, and those that read
    annotations.

    Args:
        dataset: config of the test data; wrappers are gone through.

    Raises:
        UsageError: there is no pipeline.
    """

    def __init__(self, dataset: Mapping[str, Any]) -> None:
        while 'pipeline' not in dataset and 'dataset' in dataset:
            dataset = dataset['dataset']
        if not dataset.get('pipeline'):
            raise UsageError('test_dataloader.dataset has no pipeline, which says how to prepare a picture')
        self.dataset = dataset
        # unscoped types are those of the config's default scope
        with DATASETS.switch_scope_and_registry(None) as registry:
            type_ = dataset['type']
            self.dataset_class = registry.get(type_) if isinstance(type_, str) else type_
        transforms = list(dataset['pipeline'])
        loaders = [t for t in transforms if 'LoadImage' in _name(t)]
        # mmcv and mmdet read BGR, ours RGB
        self.bgr = bool(loaders) and _name(loaders[0]) != 'LoadImage'
        self.to_float32 = any(t.get('to_float32') for t in loaders)
        kept = [t for t in transforms if t not in loaders and 'Annotations' not in _name(t)]
        self.transforms = Compose([TRANSFORMS.build(t) for t in kept])

    def __call__(self, image: np.ndarray, file: str | Path | None = None) -> dict[str, Any]:
        """One picture ``(H, W, 3)`` uint8 RGB as the model's data preprocessor takes it."""
        img = np.ascontiguousarray(image[..., ::-1]) if self.bgr else image.copy()
        if self.to_float32:
            img = img.astype(np.float32)
        shape = image.shape[:2]
        data = {'img': img, 'img_path': None if file is None else str(file), 'img_id': 0}
        data |= {'img_shape': shape, 'ori_shape': shape, 'height': shape[0], 'width': shape[1]}
        return self.transforms(data)

    def class_names(self, meta: Mapping[str, Any]) -> list[str]:
        """Names of the classes that a model was trained on.

        Args:
            meta: of its checkpoint, whose ``dataset_meta`` comes first; then the data set's ``metainfo`` in the config,
                then the class of the data set.

        Returns:
            the names; empty where nothing says them, and labels then go by their numbers.
        """
        # older checkpoints have CLASSES beside the rest
        trained = {str(key).lower(): value for key, value in (meta.get('dataset_meta') or meta).items()}
        for source in (trained, self.dataset.get('metainfo') or {}, getattr(self.dataset_class, 'METAINFO', {})):
            classes = source.get('classes')
            if isinstance(classes, Sequence) and not isinstance(classes, str) and len(classes):
                return [str(name) for name in classes]
        return []


def _name(transform: Mapping[str, Any]) -> str:
    """The class name of a transform's config, without its scope."""
    type_ = transform['type']
    return (type_ if isinstance(type_, str) else type_.__name__).rpartition('.')[2]
