"""Shapes of the digits of a scene: outlines of the visible ink, rotated rectangles, and the order of reading."""

from collections.abc import Sequence

import cv2
import numpy as np

# outlines are traced on a mask enlarged so much, so that they run along the edges of the ink, not through its pixels
_FINE = 8
# how far an outline may lie from the edge of the ink, in pixels
TOLERANCE = 0.5


def outline_keys(digits: Sequence[tuple[np.ndarray, float]]) -> list[dict]:
    """Make the keys of annotations of the digits of one scene.

    Args:
        digits (Sequence): Of each digit its visible ink ``(H, W)`` bool and the degrees by which it is turned.

    Returns:
        list[dict]: of each digit ``segmentation``, COCO's polygons of pixels (:func:`ink_outlines`); ``quad``, the
        corners of its rotated rectangle (:func:`ink_quad`); and ``order``, its place in reading order, from 0
        (:func:`reading_order`).
    """
    quads = [ink_quad(ink, angle) for ink, angle in digits]
    places = {index: place for place, index in enumerate(reading_order(quads))}
    return [
        {
            'segmentation': [np.round(part, 2).ravel().tolist() for part in ink_outlines(ink)],
            'quad': np.round(quads[index], 2).ravel().tolist(),
            'order': places[index],
        }
        for index, (ink, _) in enumerate(digits)
    ]


def ink_outlines(ink: np.ndarray, tolerance: float = TOLERANCE) -> list[np.ndarray]:
    """Trace the outer outline of every connected part of a mask.

    Pixels that touch at a corner are connected. What a part encloses belongs to its outline, as polygons of COCO have
    no holes: the loop of a zero is filled.

    Args:
        ink (np.ndarray): ``(H, W)`` bool with a true pixel.
        tolerance (float): Largest distance of the outline from the edges of the pixels, in pixels. A part too small for
            it keeps its exact outline.

    Returns:
        list[np.ndarray]: of each part ``(n, 2)`` float64, n at least 3, corners ``x, y`` in pixels, clockwise as seen,
        from the corner nearest to the top left. The largest part is first.
    """
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    top, left = int(rows[0]) - 1, int(columns[0]) - 1
    part = np.pad(ink[top + 1 : rows[-1] + 1, left + 1 : columns[-1] + 1].astype(np.float32), 1)
    # interpolated, so that an edge of steps becomes a straight one
    fine = cv2.resize(part, None, fx=_FINE, fy=_FINE, interpolation=cv2.INTER_LINEAR) >= 0.5
    traced = cv2.findContours(fine.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    outlines = []
    for contour in sorted(traced, key=cv2.contourArea, reverse=True):
        coarse = cv2.approxPolyDP(contour, tolerance * _FINE, closed=True)
        corners = (coarse if len(coarse) > 2 and cv2.contourArea(coarse) > 0 else contour)[:, 0]
        outlines.append(_clockwise((corners + 0.5) / _FINE + (left, top)))
    return outlines


def _clockwise(corners: np.ndarray) -> np.ndarray:
    """Order corners clockwise as seen, with y down, from the one nearest to the top left of their box."""
    x, y = corners.T
    if np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) < 0:
        corners = corners[::-1]
    return np.roll(corners, -int(np.argmin((corners - corners.min(0)).sum(1))), axis=0)


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


def reading_order(shapes: Sequence[np.ndarray]) -> list[int]:
    """Sort shapes as text is read: line by line from the top, each from the left.

    The highest centre begins a line, and the shapes whose centre is above the bottom of that first one belong to it.

    Args:
        shapes (Sequence[np.ndarray]): Corners ``(n, 2)`` of each shape, y down.

    Returns:
        list[int]: indices of the shapes.
    """
    boxes = [(*shape.min(0).tolist(), *shape.max(0).tolist()) for shape in shapes]
    centres = [((x0 + x1) / 2, (y0 + y1) / 2) for x0, y0, x1, y1 in boxes]
    left = sorted(range(len(boxes)), key=lambda index: centres[index][1])
    ordered: list[int] = []
    while left:
        bottom = boxes[left[0]][3]
        line = [index for index in left if centres[index][1] < bottom]
        ordered += sorted(line, key=lambda index: centres[index][0])
        left = [index for index in left if index not in line]
    return ordered
