"""Turning frames upright by the display matrix that phones write into their videos."""

import numpy as np


def upright(image: np.ndarray, matrix: bytes | None) -> np.ndarray:
    """Turn and mirror a frame as a player does.

    Args:
        image (np.ndarray): ``(H, W, 3)`` as stored.
        matrix (bytes | None): Display matrix (ISO/IEC 14496-12, section 8.3.2), nine int32 in FFmpeg's order
            ``a b u, c d v, x y w``: a stored pixel ``(p, q)`` is shown at ``(a p + c q, b p + d q)``. None: none.

    Returns:
        np.ndarray: ``(H, W, 3)``, or ``(W, H, 3)`` after a quarter turn; a view of ``image``.

    Raises:
        ValueError: the angle is no multiple of 90 degrees; the message is a predicate.
    """
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if max(abs(b), abs(c)) * 50 <= min(abs(a), abs(d)):  # a degree is left to rounding
        return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    if max(abs(a), abs(d)) * 50 <= min(abs(b), abs(c)):
        return image.transpose(1, 0, 2)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]
    degrees = round(float(np.degrees(np.arctan2(b, a))))
    raise ValueError(f'is to be shown turned by {degrees} degrees, which is no multiple of 90')
