"""Average precision of boxes by COCO's definition.

Shape legend: ``T`` IoU thresholds, ``R`` recalls, ``K`` classes, ``A`` area ranges.
"""

from collections.abc import Sequence

import numpy as np

from .box_matching import Detections, Objects, best_of_each_group, count_objects, inside, match

AREAS = {'s': (0, 32**2), 'm': (32**2, 96**2), 'l': (96**2, 1e5**2)}
FREQUENCIES = {'r': 'rare', 'c': 'common', 'f': 'frequent'}
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
_RANGES = np.array([(0, 1e5**2), *AREAS.values()], np.float64)  # (A, 2)


def limit_detections(scores: np.ndarray, limit: int) -> np.ndarray:
    """Indices of the ``limit`` highest of ``(n,)`` scores, best first; equal scores keep their order."""
    return np.argsort(-scores, kind='stable')[:limit]


def precision_table(
    objects: Objects, detections: Detections, num_classes: int, max_dets: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    """Compute interpolated precision and recall as COCO defines them.

    They are pycocotools', except that it adds 2e-16 to the denominator of precision.

    Args:
        objects (Objects): The annotated boxes.
        detections (Detections): The detected ones, those of an image in their order.
        num_classes (int): K.
        max_dets (int): Most detections per class and image.

    Returns:
        tuple: precision ``(T, R, K, A)`` and recall ``(T, K, A)`` for T=10 IoU thresholds 0.50 to 0.95, R=101 recalls,
        and A=4 area ranges: all, small, medium, large; -1 without objects.
    """
    detections = best_of_each_group(detections, num_classes, max_dets)
    matches = match(objects, detections, num_classes, _RANGES, THRESHOLDS)
    sizes = len(_RANGES), len(THRESHOLDS)
    # by class and falling score; equal scores by image
    order = np.argsort(-detections.scores, kind='stable')
    order = order[np.argsort(detections.classes[order], kind='stable')]
    unmatched = ~detections.excused[:, None] & inside(detections.boxes[:, 2] * detections.boxes[:, 3], _RANGES)
    # detections down to each one, if none matched: right or wrong
    before = np.cumsum(unmatched[order], axis=0)  # (n, A)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    place = place[matches.detections]
    rows = np.argsort(place)
    place = place[rows]
    right = matches.right[rows].reshape(-1, *sizes)  # (u, A, T)
    left_out = matches.ignored[rows].reshape(-1, *sizes)
    # a match makes one that was outside count, or one that was inside not count
    inner = unmatched[order][place][..., None]  # (u, A, 1)
    change = (right & ~inner).astype(np.int32) - (left_out & inner)
    bounds = np.searchsorted(detections.classes[order], np.arange(num_classes + 1))
    cuts = np.searchsorted(place, bounds)
    counts = count_objects(objects, num_classes, _RANGES)  # (K, A)
    precision = np.full((len(THRESHOLDS), len(RECALLS), num_classes, len(_RANGES)), -1.0)
    recall = np.full((len(THRESHOLDS), num_classes, len(_RANGES)), -1.0)
    for k in np.flatnonzero(counts.any(1)):
        part = slice(cuts[k], cuts[k + 1])
        done = before[bounds[k] - 1] if bounds[k] else 0
        total = (before[place[part]] - done)[..., None] + np.cumsum(change[part], axis=0)  # right and wrong ones
        true = np.cumsum(right[part], axis=0)
        for a in np.flatnonzero(counts[k]):
            precision[:, :, k, a], recall[:, k, a] = _curves(right[part, a], true[:, a], total[:, a], counts[k, a])
    return precision, recall


def _curves(right: np.ndarray, true: np.ndarray, total: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision ``(T, R)`` at each recall, the highest at this recall or a higher one, and the last recall ``(T,)``.

    Args:
        right: ``(u, T)`` whether a detection is right, by falling score; only right ones raise precision or recall.
        true: ``(u, T)`` right ones so far.
        total: ``(u, T)`` right and wrong ones so far.
        count: number of objects.
    """
    found = true / count
    values = np.where(right, true / np.maximum(total, 1), 0)
    values = np.append(np.maximum.accumulate(values[::-1], axis=0)[::-1], np.zeros((1, right.shape[1])), axis=0)
    table = [column[np.searchsorted(reached, RECALLS)] for column, reached in zip(values.T, found.T, strict=True)]
    return np.stack(table), found[-1] if len(found) else np.zeros(right.shape[1])


def mean_precision(precision: np.ndarray) -> float:
    """Mean of the entries that have objects; -1 if none has, which is COCO's convention."""
    valid = precision > -1
    return float(precision[valid].mean()) if valid.any() else -1.0


def summarize(precision: np.ndarray, recall: np.ndarray, classes: Sequence[int] | None = None) -> dict[str, float]:
    """Summarize AP, AP50, AP75, AP of small, medium and large objects, and AR, over all or some classes.

    Args:
        precision (np.ndarray): ``(T, R, K, A)`` of :func:`precision_table`.
        recall (np.ndarray): ``(T, K, A)``.
        classes (Sequence[int] | None): Indices along K; None: all.

    Returns:
        dict[str, float]: from 0 to 1; -1 without objects.
    """
    if classes is not None:
        precision, recall = precision[:, :, list(classes)], recall[:, list(classes)]
    scores = {
        'AP': mean_precision(precision[..., 0]),
        'AP50': mean_precision(precision[0, ..., 0]),  # thresholds are 0.5 + 0.05 t
        'AP75': mean_precision(precision[5, ..., 0]),
    }
    scores.update({f'AP_{name}': mean_precision(precision[..., i + 1]) for i, name in enumerate(AREAS)})
    scores['AR'] = mean_precision(recall[..., 0])
    return scores
