"""From a list of images on the CPU to one normalised batch where the model is."""

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
    """Stack, move and normalise images; samples pass through untouched.

    Images travel to the device as bytes, in one piece.

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
        self.register_buffer('mean', torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, data: Mapping[str, Any], training: bool = False) -> dict[str, Any]:
        """One batch.

        Args:
            data: ``inputs``, a list of ``(C, H, W)`` tensors or one ``(B, C, H, W)``, uint8 or float, RGB;
                ``data_samples``, a list or nothing.
            training: not used; mmengine passes it.

        Returns:
            ``inputs (B, C, H, W)`` float and ``data_samples`` as they were.

        Raises:
            ValueError: images differ in shape, or have another number of channels than ``mean``.
        """
        images = data['inputs']
        if not isinstance(images, Tensor):
            shapes = sorted({tuple(image.shape) for image in images})
            if len(shapes) != 1:
                raise ValueError(
                    f'images of one batch have the shapes {shapes}; end the pipeline with a transform that gives all '
                    'of them one size'
                )
            images = torch.stack(list(images))  # (B, C, H, W)
        if images.ndim != 4 or images.shape[1] != len(self.mean):
            raise ValueError(
                f'the batch of images has shape {tuple(images.shape)}; expected (B, {len(self.mean)}, H, W)'
            )
        images = images.to(self.mean.device, non_blocking=self._non_blocking)
        images = (images.to(self.mean.dtype) - self.mean).div_(self.std)
        return {'inputs': images, 'data_samples': data.get('data_samples')}
