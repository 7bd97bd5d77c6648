"""Geometric augmentation of whole images."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from florence_mm.registry import TRANSFORMS

INTERPOLATIONS = {
    'nearest': cv2.INTER_NEAREST,
    'bilinear': cv2.INTER_LINEAR,
    'bicubic': cv2.INTER_CUBIC,
    'lanczos': cv2.INTER_LANCZOS4,
}


@TRANSFORMS.register_module()
class RandomAffineImage(BaseTransform):
    """Rotate, scale, shear and shift an image about its centre by random amounts, keeping its size.

    Each amount is uniform in its range (the scale in its logarithm) and drawn from numpy's global generator.

    Args:
        max_rotate (float): Degrees, either way.
        max_translate (float): Fraction of width and height, either way.
        scale (Sequence[float]): Smallest and largest factor.
        max_shear (float): Degrees, either way, along x.
        prob (float): Probability of the transform.
        fill (int | Sequence[int]): Value of pixels from outside the image, one number or one per channel.
        interpolation (str): 'nearest', 'bilinear', 'bicubic' or 'lanczos'.
    """

    def __init__(
        self,
        max_rotate: float = 10.0,
        max_translate: float = 0.1,
        scale: Sequence[float] = (0.9, 1.1),
        max_shear: float = 0.0,
        prob: float = 1.0,
        fill: int | Sequence[int] = 0,
        interpolation: str = 'bilinear',
    ) -> None:
        if min(max_rotate, max_translate, max_shear) < 0:
            raise ValueError('max_rotate, max_translate and max_shear of RandomAffineImage must not be negative')
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(f'scale={scale!r} must be two positive factors, the smaller first')
        if not 0 <= prob <= 1:
            raise ValueError(f'prob={prob} must be a probability, from 0 to 1')
        if interpolation not in INTERPOLATIONS:
            raise ValueError(f'interpolation={interpolation!r} must be one of {", ".join(INTERPOLATIONS)}')
        self.max_rotate = max_rotate
        self.max_translate = max_translate
        self.scale = tuple(scale)
        self.max_shear = max_shear
        self.prob = prob
        self.fill = (fill, fill, fill) if isinstance(fill, int) else tuple(fill)
        self.interpolation = interpolation

    def transform(self, results: dict) -> dict:
        """Warp ``img``."""
        # always drawn, so that later transforms get the same random stream
        amounts = np.random.uniform(-1, 1, size=5)
        if np.random.rand() >= self.prob:
            return results
        img = results['img']
        height, width = img.shape[:2]
        low, high = (math.log(factor) for factor in self.scale)
        matrix = affine_matrix(
            (height, width),
            rotate=amounts[0] * self.max_rotate,
            translate=(amounts[1] * self.max_translate * width, amounts[2] * self.max_translate * height),
            scale=math.exp((low + high) / 2 + amounts[3] * (high - low) / 2),
            shear=amounts[4] * self.max_shear,
        )
        results['img'] = cv2.warpAffine(
            img, matrix, (width, height), flags=INTERPOLATIONS[self.interpolation], borderValue=self.fill
        )
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(max_rotate={self.max_rotate}, max_translate={self.max_translate}, '
            f'scale={self.scale}, max_shear={self.max_shear}, prob={self.prob}, fill={self.fill}, '
            f'interpolation={self.interpolation!r})'
        )


def affine_matrix(
    shape: tuple[int, int],
    rotate: float = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    shear: float = 0.0,
) -> np.ndarray:
    """Make the affine matrix ``(2, 3)`` from input to output pixels ``(x, y)`` about the centre of an image.

    Args:
        shape (tuple[int, int]): Height and width.
        rotate (float): Degrees, clockwise as seen.
        translate (tuple[float, float]): Pixels to the right and down.
        scale (float): Factor.
        shear (float): Degrees by which vertical lines lean to the right at the bottom.
    """
    angle, lean = math.radians(rotate), math.tan(math.radians(shear))
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    # rotation times shear [[1, lean], [0, 1]]; y points down, so this turns clockwise
    linear = np.array([[cos, cos * lean - sin], [sin, sin * lean + cos]])
    centre = np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2])
    offset = centre - linear @ centre + np.array(translate)
    return np.concatenate([linear, offset[:, None]], axis=1)
