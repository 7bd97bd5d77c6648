"""Resizing with antialiasing: of 8-bit images in integers and without copies, and of whole batches on their device."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

#: what torch's antialiased kernel has
INTERPOLATIONS = ('bilinear', 'bicubic')


def resize_image(image: np.ndarray, size: tuple[int, int], interpolation: str = 'bicubic') -> np.ndarray:
    """Resize an image with a filter that widens as the image shrinks, as Pillow's ``resize`` does.

    The weights are rounded to 16 bits, so that a value differs by at most one level from Pillow's, and where bicubic
    enlarges by two; in photographs up to one of a hundred values differs.

    Args:
        image: ``(H, W, C)`` or ``(H, W)`` uint8; a crop, which need not be contiguous.
        size: height and width of the result.
        interpolation: one of :data:`INTERPOLATIONS`.

    Returns:
        The resized image, contiguous; ``image`` itself if it has that size and is contiguous.
    """
    # the kernel would copy a crop too, three times as slowly; torch warns of arrays that may not be written
    image = np.require(image, requirements=['C', 'W'])
    if image.shape[:2] == tuple(size):
        return image
    # (H, W, C) -> (1, C, H, W), a view that torch knows as channels last
    pixels = torch.from_numpy(image.reshape(1, *image.shape[:2], -1)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        pixels = F.interpolate(pixels, tuple(size), mode=interpolation, antialias=True)
    resized = pixels.permute(0, 2, 3, 1).numpy()  # (1, H, W, C), contiguous as the input was
    return np.ascontiguousarray(resized).reshape(*size, *image.shape[2:])


def resize_batch(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images of one size with an antialiased bicubic filter, as :func:`resize_image` does, in floating point.

    Args:
        images: ``(..., C, H, W)``, values from 0 to 255, floating point.
        size: height and width of the result.

    Returns:
        ``(..., C, height, width)``, values from 0 to 255; ``images`` itself if they have that size.
    """
    if images.shape[-2:] == size:
        return images
    resized = F.interpolate(
        images.flatten(0, -4), size, mode='bicubic', antialias=True
    )  # (..., C, H, W) -> (N, C, H, W)
    return resized.clamp_(0, 255).unflatten(0, images.shape[:-3])
