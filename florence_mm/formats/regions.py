"""Files of region features: what a detector says of each image, for models that read regions instead of pixels.

A folder has shards ``regions-00000.safetensors``, ``regions-00001.safetensors`` and so on, and ``index.json``, which is
written last. A shard holds the regions of its images one after the other:

==================  ============================================================================================
``features``        ``(N, F)`` float32 or float16, features of regions
``boxes``           ``(N, 4)`` float32, left, top, right, bottom in pixels
``probabilities``   ``(N, 1 + K)`` float32, of background and the K classes; each row sums to 1
``starts``          ``(images + 1,)`` int64, the first region of each image, and N
``sizes``           ``(images, 2)`` int32, width and height of each image in pixels
==================  ============================================================================================

and in its metadata ``images``, a JSON list of their names. ``index.json`` has ``format``, ``version``,
``feature_dims``, ``classes`` (the K names) and ``shards``, a list of ``{"file": ..., "images": number, "regions":
number}``.

Not here: making features, which models do.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from florence_mm.errors import DataError
from florence_mm.utils.files import write_atomic
from florence_mm.utils.json_files import parse_json, read_json

FORMAT, VERSION = 'florence_mm regions', 1
INDEX = 'index.json'


@dataclass(frozen=True)
class Regions:
    """Regions of an image.

    Attributes:
        features: ``(R, F)`` float32.
        boxes: ``(R, 4)`` float32, left, top, right, bottom in pixels.
        probabilities: ``(R, 1 + K)`` float32, background first.
        size: width and height of the image in pixels.
    """

    features: np.ndarray
    boxes: np.ndarray
    probabilities: np.ndarray
    size: tuple[int, int]

    def positions(self) -> np.ndarray:
        """Left, top, right, bottom, width, height and area as fractions of the image, ``(R, 7)`` float32.

        >>> boxes = np.array([[10, 0, 30, 20]], np.float32)
        >>> Regions(boxes, boxes, boxes, (40, 20)).positions().tolist()
        [[0.25, 0.0, 0.75, 1.0, 0.5, 1.0, 0.5]]
        """
        corners = self.boxes / np.array(2 * self.size, np.float32)
        sides = corners[:, 2:] - corners[:, :2]
        return np.concatenate([corners, sides, sides.prod(1, keepdims=True)], 1).astype(np.float32)


class RegionWriter:
    """Write a folder of region features; it can be read once the writer is closed, and not if it breaks off.

    Args:
        folder: the folder; it is made, and must have no index yet.
        classes: names of the K classes.
        images_per_shard: images in a file.
        dtype: ``'float32'`` or ``'float16'``, of the features.

    Raises:
        DataError: the folder has an index already.
        ValueError: an argument is out of range.
    """

    def __init__(
        self, folder: str | Path, classes: Sequence[str], images_per_shard: int = 1000, dtype: str = 'float32'
    ) -> None:
        if images_per_shard < 1 or dtype not in ('float32', 'float16'):
            raise ValueError(
                f"images_per_shard is {images_per_shard} and dtype {dtype!r}; give at least 1, 'float32' or 'float16'"
            )
        self.folder = Path(folder)
        if (self.folder / INDEX).exists():
            raise DataError(f'{self.folder / INDEX} exists; give a new folder')
        self.folder.mkdir(parents=True, exist_ok=True)
        self.classes, self.images_per_shard, self.dtype = list(classes), images_per_shard, dtype
        self.feature_dims: int | None = None
        self._names: set[str] = set()
        self._pending: list[tuple[str, Regions]] = []
        self._shards: list[dict[str, Any]] = []

    def add(self, image: str, regions: Regions) -> None:
        """Add an image by its name, with at least one region.

        Raises:
            DataError: the name occurred before, shapes do not fit each other or those of earlier images, or a value is
                not finite.
        """
        count, dims = regions.features.shape
        shapes = (regions.boxes.shape, regions.probabilities.shape)
        if self.feature_dims is None:
            self.feature_dims = dims
        right = count > 0 and dims == self.feature_dims and shapes == ((count, 4), (count, 1 + len(self.classes)))
        if not right or image in self._names:
            raise DataError(
                f'{image}: features {regions.features.shape}, boxes {shapes[0]} and probabilities {shapes[1]}; '
                f'expected (R, {self.feature_dims}), (R, 4) and (R, {1 + len(self.classes)}) with at least one region, '
                'of an image that was not added before'
            )
        with np.errstate(over='ignore'):
            values = (regions.features.astype(self.dtype), regions.boxes, regions.probabilities)
        if not all(np.isfinite(one).all() for one in values):
            raise DataError(
                f'{image}: features, boxes or probabilities are not finite as {self.dtype}; the detector diverged, or '
                'its features need float32'
            )
        self._names.add(image)
        self._pending.append((image, regions))
        if len(self._pending) == self.images_per_shard:
            self._write_shard()

    def _write_shard(self) -> None:
        from safetensors.numpy import save

        every = [regions for _, regions in self._pending]
        counts = [len(regions.boxes) for regions in every]
        tensors = {
            'features': np.concatenate([regions.features for regions in every]).astype(self.dtype),
            'boxes': np.concatenate([regions.boxes for regions in every]).astype(np.float32),
            'probabilities': np.concatenate([regions.probabilities for regions in every]).astype(np.float32),
            'starts': np.cumsum([0, *counts]).astype(np.int64),
            'sizes': np.array([regions.size for regions in every], np.int32),
        }
        file = f'regions-{len(self._shards):05d}.safetensors'
        images = json.dumps([name for name, _ in self._pending])
        write_atomic(self.folder / file, save(tensors, {'images': images}))
        self._shards.append({'file': file, 'images': len(every), 'regions': sum(counts)})
        self._pending.clear()

    def close(self) -> None:
        """Write what is left, and the index.

        Raises:
            DataError: no image was added.
        """
        if self._pending:
            self._write_shard()
        if not self._shards:
            raise DataError(f'{self.folder}: no image has regions; add at least one')
        index = {
            'format': FORMAT,
            'version': VERSION,
            'feature_dims': self.feature_dims,
            'classes': self.classes,
            'shards': self._shards,
        }
        write_atomic(self.folder / INDEX, json.dumps(index, indent=1))

    def __enter__(self) -> 'RegionWriter':
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if kind is None:
            self.close()


class RegionFiles:
    """Region features of a folder, by names of images. Features stay in their files until they are read.

    Args:
        folder: the folder.

    Attributes:
        feature_dims (int): F.
        classes (list[str]): the K names.

    Raises:
        DataError: there is no index, it is of another format, or a shard is missing or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / INDEX
        if not path.is_file():
            raise DataError(
                f'{path} is missing; write the regions with florence-mm regions, which writes the index last'
            )
        index = read_json(path)
        if not isinstance(index, dict) or (index.get('format'), index.get('version')) != (FORMAT, VERSION):
            raise DataError(f'{path} is not an index of region features of version {VERSION}; write the regions anew')
        self.feature_dims, self.classes = index.get('feature_dims'), index.get('classes')
        shards = index.get('shards')
        right = isinstance(self.feature_dims, int) and isinstance(self.classes, list) and isinstance(shards, list)
        if not right or not all(isinstance(shard, dict) and shard.keys() >= {'file', 'images'} for shard in shards):
            raise DataError(f'{path} lacks feature_dims, classes or files and images of shards; write the regions anew')
        self._open: dict[str, Any] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._starts: dict[str, np.ndarray] = {}
        self._sizes: dict[str, np.ndarray] = {}
        for shard in shards:
            self._read_names(shard['file'], shard['images'])

    def _read_names(self, file: str, images: int) -> None:
        shard = self._shard(file)
        names = parse_json((shard.metadata() or {}).get('images', '[]').encode(), f'the images of {self.folder / file}')
        if len(names) != images:
            raise DataError(f'{self.folder / file} has {len(names)} images and its index {images}; write it anew')
        lacking = sorted({'features', 'boxes', 'probabilities', 'starts', 'sizes'} - set(shard.keys()))
        if lacking:
            raise DataError(f'{self.folder / file} has no {lacking[0]}; write the regions anew')
        starts, sizes = shard.get_tensor('starts'), shard.get_tensor('sizes')
        total = int(starts[-1]) if len(starts) else 0
        shapes = {
            **{'features': [total, self.feature_dims], 'boxes': [total, 4], 'sizes': [images, 2]},
            **{'probabilities': [total, 1 + len(self.classes)], 'starts': [images + 1]},
        }
        for name, expected in shapes.items():
            if (found := list(shard.get_slice(name).get_shape())) != expected:
                raise DataError(
                    f'{self.folder / file} has {name} of shape {found}; its index and images need {expected}, so write '
                    'the regions anew'
                )
        if starts[0] != 0 or (np.diff(starts) < 1).any() or (sizes < 1).any():
            raise DataError(f'{self.folder / file} has an image without regions or size; write the regions anew')
        if self._places.keys() & set(names) or len(set(names)) < len(names):
            raise DataError(f'{self.folder / file} has an image that is there twice; write the regions anew')
        self._starts[file], self._sizes[file] = starts, sizes
        self._places.update({name: (file, row) for row, name in enumerate(names)})

    def _shard(self, file: str) -> Any:
        from safetensors import SafetensorError, safe_open

        if file not in self._open:
            try:
                self._open[file] = safe_open(self.folder / file, 'np')
            except (OSError, SafetensorError) as error:
                raise DataError(f'{self.folder / file} cannot be read ({error}); write the regions anew') from None
        return self._open[file]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_open': {}}  # each process opens the files itself

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, image: str) -> bool:
        return image in self._places

    def read(self, image: str) -> Regions:
        """Read the regions of an image.

        Raises:
            DataError: there is none of that name, or its features, boxes or probabilities are not finite.
        """
        if image not in self._places:
            raise DataError(f'{self.folder} has no regions of {image}; it has those of {len(self)} other images')
        file, row = self._places[image]
        start, end = (int(place) for place in self._starts[file][row : row + 2])
        shard = self._shard(file)
        features, boxes, probabilities = (
            shard.get_slice(name)[start:end] for name in ('features', 'boxes', 'probabilities')
        )
        if not all(np.isfinite(values).all() for values in (features, boxes, probabilities)):
            raise DataError(f'{self.folder / file} has regions of {image} that are not finite; write them anew')
        width, height = (int(side) for side in self._sizes[file][row])
        return Regions(features.astype(np.float32), boxes, probabilities, (width, height))
