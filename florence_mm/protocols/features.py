"""Features of a set's images, computed once and kept on disk until the model, its pipeline or the images change.

Shape legend: ``N`` images, ``V`` views of an image, ``C`` channels.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from florence_mm.errors import UsageError
from florence_mm.formats.image import WHITE, read_image
from florence_mm.formats.published import LabelledImages
from florence_mm.models.protocol import PoolsImages, unwrap_model
from florence_mm.utils.files import replacing
from florence_mm.utils.progress import ProgressLog

from .base import LoadedLike
from .ranks import gather, is_first, my_part

#: Images whose features are in one file: what a killed evaluation loses at most.
PART = 2048
BATCH_SIZE = 64


class PreparedImages(Dataset):
    """Images of a set after a model's test pipeline.

    Args:
        images: files or arrays, see :class:`LabelledImages`.
        pipeline: function from an image ``(H, W, 3)`` uint8 RGB and its file to the data of the model's preprocessor.
    """

    def __init__(self, images: Any, pipeline: Any) -> None:
        self.images, self.pipeline = images, pipeline

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self.images[index]
        if isinstance(image, np.ndarray):
            return self.pipeline(image)
        return self.pipeline(read_image(str(image), WHITE), image)


def prepared_batches(
    model: LoadedLike, images: Any, task: str, batch_size: int | None = None, num_workers: int | None = None
) -> Iterator[dict[str, Any]]:
    """Yield batches for the model's data preprocessor, in order, with a log of the progress.

    Args:
        model: the model and its pipeline.
        images: files or arrays.
        task: the work in the log.
        batch_size: images of a batch; None: 64.
        num_workers: processes that load images; None: none.

    Raises:
        UsageError: the model has no test pipeline for images.
        DataError: an image cannot be read.
    """
    if model.pipeline is None:
        raise UsageError('the config has no test pipeline for images; give one with test_dataloader.dataset.pipeline')
    loader = DataLoader(
        PreparedImages(images, model.pipeline), batch_size or BATCH_SIZE, num_workers=num_workers or 0, collate_fn=list
    )
    progress, done = ProgressLog(task, len(images)), 0
    progress.update(0)
    for samples in loader:
        yield {key: [sample[key] for sample in samples] for key in samples[0]}
        done += len(samples)
        progress.update(done)


def weights_digest(model: nn.Module, config: Mapping[str, Any] | None) -> str:
    """Return a digest of all weights of a model and of its config."""
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True, default=str).encode(), digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}'.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def images_digest(images: Any) -> str:
    """Return a digest of arrays, or of the paths, sizes and times of files."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(images, np.ndarray):
        digest.update(str(images.shape).encode() + np.ascontiguousarray(images).tobytes())
        return digest.hexdigest()
    for path in images:
        status = Path(path).stat()
        digest.update(f'{path}\0{status.st_size}\0{status.st_mtime_ns}\n'.encode())
    return digest.hexdigest()


class FeatureCache:
    """Pooled features of images by one model, kept in a folder.

    Args:
        model: the model with its pipeline.
        folder: where features are kept; it is created.
        batch_size: images of a batch; it changes no figure beyond rounding, and is no part of the key.
        num_workers: processes that load images.

    Raises:
        UsageError: the model has no pooled features.
    """

    def __init__(
        self, model: LoadedLike, folder: str | Path, batch_size: int | None = None, num_workers: int | None = None
    ) -> None:
        self.inner = unwrap_model(model.model)
        if not isinstance(self.inner, PoolsImages):
            raise UsageError(
                f'{type(self.inner).__name__} has no pooled image features; give a two-tower model such as UniCL'
            )
        self.model, self.folder = model, Path(folder)
        self.batch_size, self.num_workers = batch_size, num_workers
        steps = getattr(model.pipeline, 'pipeline', None)
        self.key = weights_digest(self.inner, {'model': model.cfg.get('model'), 'pipeline': steps})

    def get(self, data: LabelledImages, name: str, flip: bool = False) -> Tensor:
        """Return the features ``(V, N, C)`` float32 of a set's images on the CPU, computing those that are not kept.

        Args:
            data: the images.
            name: name of the set and split, for file names and the log.
            flip: also of the images mirrored left to right, as second view.

        Raises:
            UsageError: a feature is no finite number.
            DataError: an image cannot be read.
        """
        key = hashlib.blake2b(f'{self.key} {images_digest(data.images)} {flip}'.encode(), digest_size=8).hexdigest()
        parts = []
        for start in range(0, len(data), PART):
            images = data.images[start : start + PART]
            file = self.folder / f'{name}-{key}-{start:07d}.safetensors'
            part = _kept(file, len(images))
            if not all(gather(lambda part=part: part is not None)):
                task = f'features of {name}, images from {start} of {len(data)}'
                work = functools.partial(self._compute, task=task, flip=flip)
                part = in_parts(images, work, dim=1)
                if is_first():
                    with replacing(file) as temporary:
                        save_file({'features': part}, temporary)
            parts.append(part)
        features = torch.cat(parts, 1)
        if wrong := int((~features.isfinite().all(2)).any(0).sum()):
            raise UsageError(
                f'the model gives features of {name} that are not finite numbers for {wrong} of {len(data)} images; '
                'take an earlier checkpoint of its training'
            )
        return features

    @torch.no_grad()
    def _compute(self, images: Any, task: str, flip: bool) -> Tensor:
        views: list[Tensor] = []
        for batch in prepared_batches(self.model, images, task, self.batch_size, self.num_workers):
            inputs = self.inner.data_preprocessor(batch, False)['inputs']
            sides = (inputs, inputs.flip(-1)) if flip else (inputs,)
            views.append(torch.stack([self.inner.pool_images(side).float().cpu() for side in sides]))
        return torch.cat(views, 1).contiguous()


def in_parts(images: Any, work: Callable[[Any], Tensor], dim: int = 0) -> Tensor:
    """Compute rows of images, each process those of its part, and return all in the order of the images.

    Args:
        images: files or arrays, at least one.
        work: function from images to a tensor with a row for each along ``dim``, on the CPU.
        dim: dimension of the images.
    """
    mine = images[my_part(len(images))]
    found = gather(lambda: work(mine) if len(mine) else None)
    return torch.cat([rows for rows in found if rows is not None], dim).contiguous()


def _kept(file: Path, count: int) -> Tensor | None:
    """The features in a file; None if it is not there or damaged."""
    try:
        features = load_file(file)['features']
    except (FileNotFoundError, SafetensorError, KeyError):
        return None
    return features if features.ndim == 3 and features.shape[1] == count else None
