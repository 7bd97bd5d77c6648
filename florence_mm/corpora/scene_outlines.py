"""Shapes of the digits of a scene: outlines of the visible ink, rotated rectangles, and the order of reading."""

from collections.abc import Sequence

import numpy as np

from florence_mm.formats.outlines import mask_outlines
from florence_mm.language.reading import reading_order
from florence_mm.language.regions import bounding_box

# how far an outline may lie from the edge of the ink, in pixels
TOLERANCE = 0.5


def outline_keys(digits: Sequence[tuple[np.ndarray, float]]) -> list[dict]:
    """Make the keys of annotations of the digits of one scene.

    Args:
        digits (Sequence): Of each digit its visible ink ``(H, W)`` bool and the degrees by which it is turned.

    Returns:
        list[dict]: of each digit ``segmentation``, COCO's polygons of pixels, filled outlines
        (:func:`~florence_mm.formats.outlines.mask_outlines`); ``quad``, the corners of its rotated rectangle
        (:func:`ink_quad`); and ``order``, its place in reading order, from 0
        (:func:`~florence_mm.language.reading.reading_order`).
    """
    quads = [ink_quad(ink, angle) for ink, angle in digits]
    places = {index: place for place, index in enumerate(reading_order([bounding_box(quad) for quad in quads]))}
    return [
        {
            'segmentation': [np.round(part, 2).ravel().tolist() for part in mask_outlines(ink, TOLERANCE)],
            'quad': np.round(quads[index], 2).ravel().tolist(),
            'order': places[index],
        }
        for index, (ink, _) in enumerate(digits)
    ]


def ink_quad(ink: np.ndarray, angle: float) -> np.ndarray:
    """Find the tight rectangle around a mask that is turned by an angle.

    Args:
        ink (np.ndarray): ``(H, W)`` bool with a true pixel.
        angle (float): Degrees, counterclockwise.

    Returns:
        np.ndarray: ``(4, 2)`` float64, its corners ``x, y`` in pixels, clockwise as seen from the one that is the top
        left of the rectangle before it is turned. They can lie outside the picture.
    """
    rows, columns = np.nonzero(ink)
    corners = np.concatenate([np.stack([columns + x, rows + y], 1) for x in (0, 1) for y in (0, 1)])
    turn = np.deg2rad(angle)
    # from the rectangle to the picture, as in `digit_ink.draw_ink`
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    upright = corners @ matrix
    (left, top), (right, bottom) = upright.min(0), upright.max(0)
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]]) @ matrix.T
