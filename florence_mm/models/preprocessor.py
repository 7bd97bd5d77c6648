"""Data preprocessor: stacks images or clips to one batch, moves it to the model's device and normalises it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

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
