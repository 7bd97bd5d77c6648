"""Boxes as numpy arrays, for data sets; :mod:`florence_mm.ops.boxes` is for tensors."""

import numpy as np


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union ``(N, M)`` of boxes ``(N, 4)`` and ``(M, 4)``, given as ``x1, y1, x2, y2``."""
    upper = np.maximum(first[:, None, :2], second[None, :, :2])  # (N, M, 2)
    lower = np.minimum(first[:, None, 2:], second[None, :, 2:])
    overlap = np.clip(lower - upper, 0, None).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    return overlap / (areas[0][:, None] + areas[1][None] - overlap)
