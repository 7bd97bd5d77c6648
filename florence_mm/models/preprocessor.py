"""Data preprocessor: stacks images or clips to one batch, moves it to the model's device and normalises it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor
from torch.nn import functional as F

from florence_mm.ops.resizing import resize_batch
from florence_mm.registry import MODELS

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@MODELS.register_module()
class ImageTextDataPreprocessor(BaseDataPreprocessor):
    """Stack, move and normalise images or clips; data samples are passed through unchanged.

    The batch is moved before it is normalised, so uint8 inputs are transferred as bytes.

    Args:
        mean: mean of each channel (RGB) in pixel values, 0 to 255.
        std: standard deviation of each channel (RGB) in pixel values.
        non_blocking: go on while the batch is copied to a GPU, from pinned memory.
    """

    def __init__(
        self,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        non_blocking: bool = True,
    ) -> None:
        super().__init__(non_blocking)
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self._train_size: tuple[int, int] | None = None

    def set_train_size(self, size: int | None) -> None:
        """Resize the images of training batches to squares of this side from now on; None: they keep their size."""
        self._train_size = None if size is None else (size, size)

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Normalise one batch.

        Args:
            data: ``inputs``, a list of images ``(C, H, W)``, clips ``(C, T, H, W)`` or groups of N clips per video
                ``(N, C, T, H, W)``, or a tensor with an axis B before these; uint8 or float, RGB; and optionally
                ``data_samples``, a list. Images ``(C, 0, 0)`` of a list, those of texts alone, become black ones
                of the others' size.
            training: whether the batch is one of training, whose images get the size of :meth:`set_train_size`.

        Returns:
            ``inputs`` as a float tensor with axis B, and the unchanged ``data_samples``.

        Raises:
            ValueError: inputs differ in shape, or their number of channels differs from that of ``mean``.
        """
        images = data['inputs']
        if not isinstance(images, Tensor):
            images = _with_pixels(images)
            shapes = sorted({tuple(image.shape) for image in images})
            if len(shapes) != 1:
                raise ValueError(
                    f'images or clips of one batch have the shapes {shapes}; end the pipeline with a transform that '
                    'gives all of them one size'
                )
            images = self._stack(list(images))  # (B, C, H, W), (B, C, T, H, W) or (B, N, C, T, H, W)
        channels = len(self.mean)
        if not 4 <= images.ndim <= 6 or images.shape[2 if images.ndim == 6 else 1] != channels:
            raise ValueError(
                f'the batch has shape {tuple(images.shape)}; expected (B, {channels}, H, W), for clips '
                f'(B, {channels}, T, H, W), for several clips a video (B, N, {channels}, T, H, W)'
            )
        images = images.to(self.mean.device, non_blocking=self._non_blocking)
        if training and self._train_size is not None:
            images = _resized(images.to(self.mean.dtype), self._train_size)
        # (C, 1, 1), for clips (C, 1, 1, 1)
        mean, std = (x if images.ndim == 4 else x.unsqueeze(-1) for x in (self.mean, self.std))
        # in place, as fresh memory of float size costs more than the arithmetic; never in the caller's tensor
        images = images.to(mean.dtype, copy=True).sub_(mean).div_(std)
        return {'inputs': images, 'data_samples': data.get('data_samples')}

    def _stack(self, images: list[Tensor]) -> Tensor:
        """Stack images or clips, in pinned memory if they are copied to a GPU without waiting."""
        first, out = images[0], None
        if self._non_blocking and self.mean.is_cuda and not first.is_cuda:
            out = torch.empty((len(images), *first.shape), dtype=first.dtype, pin_memory=True)
        return torch.stack(images, out=out)


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images ``(B, C, H, W)``, or each frame of clips ``(..., C, T, H, W)``."""
    if images.ndim == 4:
        return resize_batch(images, size)
    return resize_batch(images.transpose(-4, -3), size).transpose(-4, -3)


def _with_pixels(images: Sequence[Tensor]) -> Sequence[Tensor]:
    """Replace images without pixels by black ones like the others, if there are others."""
    first = next((image for image in images if image.numel()), None)
    if first is None or all(image.numel() for image in images):
        return images
    black = torch.zeros_like(first)
    return [image if image.numel() else black for image in images]


@MODELS.register_module()
class PaddedImageDataPreprocessor(ImageTextDataPreprocessor):
    """Normalise images and pad those of a batch to one size, with a channel that says which pixels are real.

    Padding is to the right of and below an image. What is real is known from the sizes, not from the pixels, so that
    a black image stays one. Images of other samples, ``false_inputs`` of data samples, get the same size and are
    returned as their ``false_images``.
    """

    set_train_size = None  # images keep their shape and cannot all get one side: sizes are those of the pipeline

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Normalise and pad one batch.

        Args:
            data: ``inputs``, B images ``(3, H, W)`` of any sizes, uint8 or float, RGB, or a tensor of them; and
                optionally ``data_samples``, a list.
            training: whether the batch is one of training.

        Returns:
            ``inputs (B, 3, H, W)`` if all images have one size, otherwise ``(B, 4, H, W)`` whose last channel is 1 at
            real pixels and 0 at padding; and ``data_samples``.

        Raises:
            ValueError: the number of channels differs from that of ``mean``.
        """
        samples = data.get('data_samples')
        images, false = list(data['inputs']), false_inputs(samples)
        every = [*images, *false]
        height, width = (max((image.shape[axis] for image in every), default=0) for axis in (-2, -1))
        if all(image.shape[-2:] == (height, width) for image in every):
            inputs = super().forward({'inputs': data['inputs'] if not false else every}, training)['inputs']
        else:
            padded = [_padded(image, height, width) for image in every]
            inputs = super().forward({'inputs': padded}, training)['inputs']
            real = inputs.new_zeros(len(every), 1, height, width)
            for row, image in zip(real, every, strict=True):
                row[:, : image.shape[-2], : image.shape[-1]] = 1
            inputs = torch.cat([inputs * real, real], 1)
        set_false_images(samples, inputs[len(images) :] if false else ())
        return {'inputs': inputs[: len(images)], 'data_samples': samples}


@MODELS.register_module()
class RegionDataPreprocessor(BaseDataPreprocessor):
    """Pad the regions of a batch of images to one number, with a column that says which are real.

    Regions of other samples, ``false_inputs`` of data samples, are padded to the same number and returned as their
    ``false_images``.
    """

    def __init__(self, non_blocking: bool = True) -> None:
        super().__init__(non_blocking)

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """Pad one batch.

        Args:
            data: ``inputs``, regions ``(R, D)`` of each image, or a tensor of them; and optionally ``data_samples``.
            training: whether the batch is one of training; changes nothing.

        Returns:
            ``inputs (B, most regions, D + 1)``, on the model's device, the last column 1 where a region is real; and
            ``data_samples``.

        Raises:
            ValueError: regions have different widths, or an image has none.
        """
        samples = data.get('data_samples')
        regions, false = list(data['inputs']), false_inputs(samples)
        every = [*regions, *false]
        shapes = {tuple(rows.shape) for rows in every}
        if any(len(shape) != 2 or not shape[0] for shape in shapes) or len({shape[1] for shape in shapes}) > 1:
            raise ValueError(
                f'regions of a batch have the shapes {sorted(shapes)}; expected (regions, channels) with at least one '
                'region an image, of one width, as LoadRegions reads them in a test run; pictures are not read'
            )
        most = max(len(rows) for rows in every)
        padded = [F.pad(F.pad(rows.float(), (0, 1), value=1.0), (0, 0, 0, most - len(rows))) for rows in every]
        inputs = torch.stack(padded).to(self.device, non_blocking=self._non_blocking)  # (B, most, D + 1)
        set_false_images(samples, inputs[len(regions) :] if false else ())
        return {'inputs': inputs[: len(regions)], 'data_samples': samples}


def false_inputs(samples: Sequence[Any] | None) -> list[Tensor]:
    """Collect ``false_inputs`` of data samples, the images of other samples; none if samples have none."""
    return [sample.false_inputs for sample in samples or () if 'false_inputs' in sample]


def set_false_images(samples: Sequence[Any] | None, images: Sequence[Tensor]) -> None:
    """Set ``false_images`` of the data samples that have ``false_inputs`` to these, preprocessed."""
    with_false = [sample for sample in samples or () if 'false_inputs' in sample]
    for sample, image in zip(with_false, images, strict=True):
        sample.set_field(image, 'false_images')


def _padded(image: Tensor, height: int, width: int) -> Tensor:
    return F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))
