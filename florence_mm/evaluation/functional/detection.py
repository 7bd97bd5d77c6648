"""Average precision of boxes, with the evaluator of faster-coco-eval."""

from collections.abc import Sequence
from typing import Any

import numpy as np

AREAS = {'s': (0, 32**2), 'm': (32**2, 96**2), 'l': (96**2, 1e5**2)}
FREQUENCIES = {'r': 'rare', 'c': 'common', 'f': 'frequent'}


def limit_detections(scores: np.ndarray, limit: int) -> np.ndarray:
    """Indices of the ``limit`` highest of ``(n,)`` scores, best first; equal scores keep their order."""
    return np.argsort(-scores, kind='stable')[:limit]


def precision_table(
    ground_truth: dict[str, Any], detections: list[dict], max_dets: int = 100, lvis_style: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Compute interpolated precision and recall as COCO defines them.

    Args:
        ground_truth (dict): COCO format.
        detections (list[dict]): Each with ``image_id``, ``category_id``, ``bbox`` (x, y, width, height) and ``score``.
        max_dets (int): Most detections per class and image.
        lvis_style (bool): Ignore detections of classes that are not annotated in the image, and unmatched detections
            of ``not_exhaustive_category_ids``.

    Returns:
        tuple: precision ``(T, R, K, A)`` and recall ``(T, K, A)`` for T=10 IoU thresholds 0.50 to 0.95, R=101 recalls,
        K categories by id, and A=4 area ranges: all, small, medium, large; -1 without objects.

    Raises:
        ImportError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise ImportError(
            "DetectionMetric needs faster-coco-eval; install it with 'pip install faster-coco-eval'"
        ) from None
    ground_truth, detections = renumber(ground_truth, detections)
    truth = COCO(ground_truth)
    evaluator = COCOeval_faster(truth, truth.loadRes(detections), iouType='bbox', lvis_style=lvis_style)
    evaluator.params.maxDets = [max_dets]
    evaluator.evaluate()
    evaluator.accumulate()
    # (T, R, K, A, 1) -> (T, R, K, A) and (T, K, A, 1) -> (T, K, A)
    return np.asarray(evaluator.eval['precision'])[..., 0], np.asarray(evaluator.eval['recall'])[..., 0]


def renumber(ground_truth: dict[str, Any], detections: list[dict]) -> tuple[dict[str, Any], list[dict]]:
    """Number images, categories and annotations from 1, in the order of their ids; the arguments are not changed.

    Evaluators have meanings for some numbers: 0 says that a detection matches no annotation, -1 stands for all
    categories.
    """
    images, categories = (
        {id_: number for number, id_ in enumerate(sorted(item['id'] for item in ground_truth[key]), 1)}
        for key in ('images', 'categories')
    )

    def image(item: dict) -> dict:
        lists = {
            key: [categories[id_] for id_ in item[key] if id_ in categories]
            for key in ('neg_category_ids', 'not_exhaustive_category_ids')
            if key in item
        }
        return {**item, 'id': images[item['id']], **lists}

    def box(item: dict) -> dict:
        return {**item, 'image_id': images[item['image_id']], 'category_id': categories[item['category_id']]}

    renumbered = {
        **ground_truth,
        'images': [image(item) for item in ground_truth['images']],
        'categories': [{**item, 'id': categories[item['id']]} for item in ground_truth['categories']],
        'annotations': [{**box(item), 'id': n} for n, item in enumerate(ground_truth['annotations'], 1)],
    }
    return renumbered, [box(item) for item in detections]


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
