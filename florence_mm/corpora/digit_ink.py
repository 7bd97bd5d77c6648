"""Drawing a digit: its shape at any size and angle, and a colour with contrast to the background."""

from collections.abc import Sequence

import cv2
import numpy as np

from .scene_backgrounds import LUMA

MIN_CONTRAST = 0.35  # how much brighter ink is than its mean background, from 0 to 1


def draw_ink(
    image: np.ndarray, size: int, height: float, angle: float, shear: float, centre: Sequence[float]
) -> np.ndarray:
    """Draw the ink of a digit on an empty image.

    Args:
        image (np.ndarray): ``(8, 8)`` float32 from 0 to 1.
        size (int): Width and height of the image.
        height (float): Height of the enlarged 8x8 image, in pixels.
        angle (float): Degrees, counterclockwise.
        shear (float): Columns moved per row.
        centre (Sequence[float]): Column and row of its centre.

    Returns:
        np.ndarray: opacity ``(size, size)`` float32 from 0 to 1.
    """
    scale, turn = height / 8, np.deg2rad(angle)
    linear = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) @ [[1.0, shear], [0.0, 1.0]]
    # a margin of a pixel, so that strokes at the border of the 8x8 image end softly too
    padded = np.pad(image, 1)
    matrix = np.empty((2, 3))
    matrix[:, :2] = scale * linear
    matrix[:, 2] = np.asarray(centre) - matrix[:, :2] @ [4.5, 4.5]
    large = cv2.warpAffine(padded, matrix, (size, size), flags=cv2.INTER_CUBIC)
    # strokes of a soft 8x8 image become sharp ones with a thin soft edge
    return np.clip((large - 0.3) / 0.4, 0, 1)


def tight_box(ink: np.ndarray) -> tuple[int, int, int, int]:
    """Tight box ``x, y, width, height`` around the true pixels of a mask ``(H, W)``."""
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1


def ink_colour(rng: np.random.Generator, below: np.ndarray) -> np.ndarray:
    """Draw a colour brighter than ``below (3,)`` by at least :data:`MIN_CONTRAST`; white if there is none."""
    for _ in range(100):
        colour = rng.uniform(0, 1, 3).astype(np.float32)
        if float(LUMA @ (colour - below)) >= MIN_CONTRAST:
            return colour
    return np.ones(3, dtype=np.float32)
