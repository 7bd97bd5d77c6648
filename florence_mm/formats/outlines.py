"""Outlines of masks as polygons, and the run lengths in which COCO stores masks."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from florence_mm.errors import shown
from florence_mm.utils.numbers import is_whole

# outlines are traced on a mask enlarged so much, so that they run along its edge, not through its pixels
_FINE = 8
_LARGEST = 2**28  # pixels of a mask


def mask_outlines(mask: np.ndarray, tolerance: float) -> list[np.ndarray]:
    """Trace the outer outline of every connected part of a mask.

    What a part encloses belongs to its outline, as polygons have no holes: the loop of a zero is filled.

    Args:
        mask (np.ndarray): ``(H, W)`` bool with a true pixel.
        tolerance (float): Largest distance of the outline from the edge of the mask, in pixels. A part too small for it
            keeps its exact outline.

    Returns:
        list[np.ndarray]: of each part ``(n, 2)`` float64, n at least 3, corners ``x, y`` in pixels, clockwise as seen,
        from the corner nearest to the top left. The largest part is first.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, left = int(rows[0]) - 1, int(columns[0]) - 1
    part = np.pad(mask[top + 1 : rows[-1] + 1, left + 1 : columns[-1] + 1].astype(np.float32), 1)
    # interpolated, so that an edge of steps becomes a straight one
    fine = cv2.resize(part, None, fx=_FINE, fy=_FINE, interpolation=cv2.INTER_LINEAR) >= 0.5
    traced = cv2.findContours(fine.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    outlines = []
    for contour in sorted(traced, key=cv2.contourArea, reverse=True):
        corners = (coarser(contour[:, 0], tolerance * _FINE) + 0.5) / _FINE + (left, top)
        x, y = corners.T
        if np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) < 0:  # y points down
            corners = corners[::-1]
        outlines.append(np.roll(corners, -int(np.argmin((corners - corners.min(0)).sum(1))), axis=0))
    return outlines


def coarser(corners: np.ndarray, tolerance: float) -> np.ndarray:
    """Leave out corners of a polygon, by Douglas and Peucker's rule.

    Args:
        corners (np.ndarray): ``(n, 2)``.
        tolerance (float): Largest distance from the polygon as it was, in its unit. A polygon of which nothing would be
            left stays as it is.

    Returns:
        np.ndarray: ``(m, 2)`` float64, m at least 3.
    """
    points = np.asarray(corners, dtype=np.float32)[:, None]
    fewer = cv2.approxPolyDP(points, tolerance, closed=True)
    return (fewer if len(fewer) > 2 and cv2.contourArea(fewer) > 0 else points)[:, 0].astype(np.float64)


def decode_run_lengths(stored: Mapping[str, Any]) -> np.ndarray:
    """Decode a mask of COCO: lengths of runs of false and true pixels in turn, column by column.

    Args:
        stored: ``size``, height and width, and ``counts``, a list of whole numbers or COCO's compressed text.

    Returns:
        np.ndarray: ``(H, W)`` bool.

    Raises:
        ValueError: it is no such mask; the message is only the reason, without file.

    >>> decode_run_lengths({'size': [2, 3], 'counts': [1, 2, 3]}).astype(int).tolist()
    [[0, 1, 0], [1, 0, 0]]
    """
    size, counts = stored.get('size'), stored.get('counts')
    right = isinstance(size, Sequence) and len(size) == 2 and all(is_whole(side) and side > 0 for side in size)
    if not right or size[0] * size[1] > _LARGEST:
        raise ValueError(f'a mask has the size {shown(size)}; expected its height and width in pixels')
    if isinstance(counts, str | bytes):
        counts = _decompressed(counts.encode('latin1') if isinstance(counts, str) else counts)
    if not isinstance(counts, list) or not all(is_whole(count) and count >= 0 for count in counts):
        raise ValueError(f'a mask has the counts {shown(counts)}; expected lengths of runs')
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f'the runs of a mask have {sum(counts)} pixels; its size of {size[0]}x{size[1]} has another')
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(size[1], size[0]).T


def _decompressed(text: bytes) -> list[int]:
    """Run lengths of COCO's compressed text: 5 bits a character, from the fourth on less the one before last.

    Raises:
        ValueError: the text is cut off.
    """
    counts: list[int] = []
    number = shift = 0
    for char in text:
        code = char - 48
        number |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            number -= 1 << shift
        counts.append(number + counts[-2] if len(counts) > 2 else number)
        number = shift = 0
    if shift:
        raise ValueError('the compressed counts of a mask are cut off; write the file again')
    return counts
