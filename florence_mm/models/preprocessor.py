"""From a list of images or clips on the CPU to one normalised batch where the model is."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from florence_mm.registry import MODELS

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


@MODELS.register_module()
class ImageTextDataPreprocessor(BaseDataPreprocessor):
    """Stack, move and normalise images or clips; samples pass through untouched.

    They travel to the device as bytes, in one piece.

    Args:
        mean: of each channel, in units of pixel values (0 to 255), RGB.
        std: likewise.
        non_blocking: as in ``Tensor.to``.
    """

    def __init__(
        self,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        non_blocking: bool = False,
    ) -> None:
        super().__init__(non_blocking)
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """One batch.

        Args:
            data: ``inputs``, a list of images ``(C, H, W)``, of clips ``(C, T, H, W)`` or of several clips a video
                ``(N, C, T, H, W)``, or one tensor with an axis B before these; uint8 or float, RGB; ``data_samples``,
                a list or nothing.
            training: not used; mmengine passes it.

        Returns:
            ``inputs`` with its axis B, float, and ``data_samples`` as they were.

        Raises:
            ValueError: inputs differ in shape, or have another number of channels than ``mean``.
        """
        images = data['inputs']
        if not isinstance(images, Tensor):
            shapes = sorted({tuple(image.shape) for image in images})
            if len(shapes) != 1:
                raise ValueError(
                    f'images or clips of one batch have the shapes {shapes}; end the pipeline with a transform that '
                    'gives all of them one size'
                )
            images = torch.stack(list(images))  # (B, C, H, W), (B, C, T, H, W) or (B, N, C, T, H, W)
        channels = len(self.mean)
        if not 4 <= images.ndim <= 6 or images.shape[2 if images.ndim == 6 else 1] != channels:
            raise ValueError(
                f'the batch has shape {tuple(images.shape)}; expected (B, {channels}, H, W), for clips '
                f'(B, {channels}, T, H, W), for several clips a video (B, N, {channels}, T, H, W)'
            )
        images = images.to(self.mean.device, non_blocking=self._non_blocking)
        # (C, 1, 1), for clips (C, 1, 1, 1)
        mean, std = (x if images.ndim == 4 else x.unsqueeze(-1) for x in (self.mean, self.std))
        images = (images.to(mean.dtype) - mean).div_(std)
        return {'inputs': images, 'data_samples': data.get('data_samples')}
