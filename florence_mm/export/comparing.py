"""Outputs of an exported file beside those of the model."""

from collections.abc import Mapping

import numpy as np

TOLERANCE = 1e-4


def largest_difference(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], side: int = 1) -> float:
    """The largest difference between two outputs; infinity where their shapes or labels differ.

    Boxes are compared with those of the same label wherever they stand, as two scores that are equal up to rounding
    may change places.

    Args:
        expected: outputs of the model.
        found: outputs of the file.
        side: longest side of the pictures, in which coordinates of boxes are measured.
    """
    if 'dets' in expected:
        rows = zip(expected['dets'], expected['labels'], found['dets'], found['labels'], strict=True)
        return max(_boxes(*row, side) for row in rows)
    differences = [_values(expected[name], found[name]) for name in expected]
    return max(differences)


def _values(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape or not np.isfinite(found).all():
        return float('inf')
    return float(np.abs(expected - found).max(initial=0))


def _boxes(dets: np.ndarray, labels: np.ndarray, found: np.ndarray, found_labels: np.ndarray, side: int) -> float:
    """Compare ``dets (M, 5)`` and ``labels (M,)`` of one picture."""
    dets, labels, found, found_labels = dets[labels >= 0], labels[labels >= 0], found[found_labels >= 0], found_labels
    found_labels = found_labels[found_labels >= 0]
    if len(dets) != len(found):
        return float('inf')
    if not len(dets):
        return 0.0
    scale = np.array([side, side, side, side, 1.0])
    apart = np.abs(dets[:, None] / scale - found[None] / scale).max(-1)  # (M, M)
    apart = np.where(labels[:, None] == found_labels[None], apart, np.inf)
    # each has its like on the other side, and the scores are the same row by row
    scores = np.abs(dets[:, 4] - found[:, 4]).max()
    return float(max(apart.min(1).max(), apart.min(0).max(), scores))
