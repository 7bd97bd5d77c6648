"""Scores of written regions: boxes of phrases, outlines, and boxes of classes.

Shape legend: ``n`` predicted boxes, ``m`` annotated boxes, ``H``, ``W`` size of the picture.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from florence_mm.evaluation.functional.box_matching import Detections, Objects
from florence_mm.evaluation.functional.detection import precision_table, summarize
from florence_mm.language.labels import normalize_text
from florence_mm.language.regions import Box, Polygon, Target, bounding_box
from florence_mm.utils.boxes import box_iou

#: IoU from which a box counts as found.
FOUND = 0.5


def boxes_of(target: Target) -> list[tuple[str, Box, float]]:
    """Boxes of a target with their normalised texts and scores, the highest score first; no score counts as 1."""
    boxes = [
        (normalize_text(region.text), box, 1.0 if region.score is None else region.score)
        for region in target.regions
        for box in region.boxes
    ]
    return sorted(boxes, key=lambda item: -item[2])


def first_hit(predicted: Sequence[Box], annotated: Sequence[Box], threshold: float = FOUND) -> int | None:
    """Place of the first of ranked boxes with an IoU of ``threshold`` or more with any of the annotated ones.

    Args:
        predicted: n boxes, the best first.
        annotated: m boxes.
        threshold: least IoU.

    Returns:
        int | None: from 0; None if there is no such box.

    >>> first_hit([(0, 0, 1, 1), (0, 0, 0.5, 0.25)], [(0, 0, 0.5, 0.5)])  # IoU 0.25 and 0.5
    1
    """
    if not len(predicted) or not len(annotated):
        return None
    hits = np.flatnonzero((_iou(predicted, annotated) >= threshold).any(1))
    return int(hits[0]) if len(hits) else None


def phrase_ranks(predicted: Target, annotated: Target, merged: bool = False) -> list[int | None]:
    """Place of the first right box of each annotated phrase, among the predicted boxes of the same phrase.

    Phrases are compared after normalisation (:func:`florence_mm.language.labels.normalize_text`). Boxes of a phrase
    that was written twice are ranked together.

    Args:
        predicted: regions of phrases, with or without scores.
        annotated: regions of phrases, each with its boxes.
        merged: compare with the box around all boxes of the phrase instead of with any of them.

    Returns:
        list: from 0 for each annotated phrase; None if no box is right.
    """
    written: dict[str, list[Box]] = {}
    for text, box, _ in boxes_of(predicted):
        written.setdefault(text, []).append(box)
    ranks = []
    for region in annotated.regions:
        boxes = list(region.boxes)
        if merged and boxes:
            boxes = [bounding_box([corner for box in boxes for corner in (box[:2], box[2:])])]
        ranks.append(first_hit(written.get(normalize_text(region.text), ()), boxes))
    return ranks


def polygon_mask(polygons: Sequence[Polygon], height: int, width: int) -> np.ndarray:
    """Rasterise an outline: a pixel is inside if its centre is inside one of the parts, by the even-odd rule.

    Args:
        polygons: parts, as fractions of the picture.
        height, width: H and W.

    Returns:
        np.ndarray: ``(H, W)`` bool.

    >>> polygon_mask([((0, 0), (0.5, 0), (0.5, 0.5), (0, 0.5))], 4, 4).sum()
    np.int64(4)
    """
    mask = np.zeros((height, width), bool)
    centres = np.arange(height) + 0.5
    for part in polygons:
        points = np.asarray(part, np.float64) * (width, height)  # (k, 2)
        x0, y0, x1, y1 = (values[:, None] for values in np.hstack([points, np.roll(points, -1, 0)]).T)  # (k, 1)
        edge, row = np.nonzero((y0 <= centres) != (y1 <= centres))
        slope = (x1[edge, 0] - x0[edge, 0]) / (y1[edge, 0] - y0[edge, 0])
        crossing = x0[edge, 0] + (centres[row] - y0[edge, 0]) * slope
        # the first column whose centre lies on the crossing or right of it
        column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
        turns = np.zeros((height, width + 1), np.int64)
        np.add.at(turns, (row, column), 1)
        mask |= turns[:, :width].cumsum(1) % 2 == 1
    return mask


def mask_overlap(predicted: Target, annotated: Target, height: int, width: int) -> tuple[int, int]:
    """Pixels in the intersection and in the union of all outlines of two targets."""
    first, second = (
        polygon_mask([part for region in target.regions for part in region.polygons], height, width)
        for target in (predicted, annotated)
    )
    return int((first & second).sum()), int((first | second).sum())


def summarize_overlaps(overlaps: Iterable[tuple[int, int]]) -> dict[str, float]:
    """Mean IoU over answers, and the overall IoU: all intersections over all unions.

    An answer where nothing is annotated and nothing predicted has an IoU of 1.

    Args:
        overlaps: pixels in the intersection and in the union of each answer, at least one.

    >>> summarize_overlaps([(1, 2), (0, 4)])
    {'mIoU': 0.25, 'oIoU': 0.16666666666666666}
    """
    intersections, unions = np.array(list(overlaps), np.float64).T
    each = np.divide(intersections, unions, out=np.ones_like(unions), where=unions > 0)
    overall = intersections.sum() / unions.sum() if unions.sum() else 1.0
    return {'mIoU': float(each.mean()), 'oIoU': float(overall)}


@dataclass(frozen=True)
class BoxCounts:
    """Counts of a picture.

    Attributes:
        annotated: annotated boxes.
        predicted: predicted boxes.
        right: pairs of an annotated and a predicted box of the same text.
        found: pairs of an annotated and a predicted box of whatever texts.
    """

    annotated: int
    predicted: int
    right: int
    found: int


def count_boxes(predicted: Target, annotated: Target, threshold: float = FOUND) -> BoxCounts:
    """Pair the boxes of two targets one to one, the predicted ones by falling score, each with the best free box.

    Args:
        predicted: regions with texts, with or without scores.
        annotated: regions with texts.
        threshold: least IoU of a pair.
    """
    written, known = boxes_of(predicted), boxes_of(annotated)
    if not written or not known:
        return BoxCounts(len(known), len(written), 0, 0)
    iou = _iou([box for _, box, _ in written], [box for _, box, _ in known])  # (n, m)
    same = np.array([[text == other for other, _, _ in known] for text, _, _ in written])
    right, found = (_pairs(np.where(allowed, iou, 0), threshold) for allowed in (same, np.ones_like(same)))
    return BoxCounts(len(known), len(written), right, found)


def summarize_counts(counts: Sequence[BoxCounts]) -> dict[str, float]:
    """Precision, recall and F1 of boxes with the right text, and the share of annotated boxes that were found."""
    annotated, predicted, right, found = (
        sum(getattr(count, key) for count in counts) for key in ('annotated', 'predicted', 'right', 'found')
    )
    scores = {'precision': right / max(predicted, 1), 'recall': right / max(annotated, 1)}
    scores['F1'] = 2 * right / max(annotated + predicted, 1)
    scores['found'] = found / max(annotated, 1)
    return scores


def written_precision(
    predicted: Sequence[Target], annotated: Sequence[Target], sizes: Sequence[tuple[int, int]]
) -> dict[str, float]:
    """Average precision of written boxes by COCO's protocol; the classes are the annotated texts.

    Boxes of other texts count for no class. Without scores boxes are ranked as they were written.

    Args:
        predicted: what was written about each picture.
        annotated: what is annotated.
        sizes: H and W of each picture, by which objects are small, medium or large.

    Returns:
        dict[str, float]: see :func:`florence_mm.evaluation.functional.detection.summarize`.
    """
    names = sorted({text for target in annotated for text, _, _ in boxes_of(target)})
    classes = {name: place for place, name in enumerate(names)}
    rows: list[list[tuple]] = []
    for targets in (annotated, predicted):
        rows.append(
            [
                (image, classes[text], _pixels(box, *sizes[image]), score)
                for image, target in enumerate(targets)
                for text, box, score in boxes_of(target)
                if text in classes
            ]
        )
    known, written = rows
    boxes = np.array([row[2] for row in known], np.float64).reshape(-1, 4)
    objects = Objects(
        np.array([row[0] for row in known], np.int64),
        np.array([row[1] for row in known], np.int64),
        boxes,
        boxes[:, 2] * boxes[:, 3],
        np.zeros(len(known), bool),
    )
    detections = Detections(
        np.array([row[0] for row in written], np.int64),
        np.array([row[1] for row in written], np.int64),
        np.array([row[2] for row in written], np.float64).reshape(-1, 4),
        np.array([row[3] for row in written], np.float64),
        np.zeros(len(written), bool),
    )
    return summarize(*precision_table(objects, detections, len(names)))


def _pixels(box: Box, height: int, width: int) -> tuple[float, float, float, float]:
    """Left, top, width and height in pixels."""
    x0, y0, x1, y1 = box
    return x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height


def _iou(first: Sequence[Box], second: Sequence[Box]) -> np.ndarray:
    return box_iou(np.array(first, np.float64), np.array(second, np.float64))


def _pairs(iou: np.ndarray, threshold: float) -> int:
    """Number of pairs of rows and columns, where each row in turn takes the best column that is free."""
    iou, count = iou.copy(), 0
    for row in range(len(iou)):
        best = int(iou[row].argmax())
        if iou[row, best] >= threshold:
            iou[:, best] = 0
            count += 1
    return count
