"""Matching of detections with annotated boxes by COCO's rules, for all images and classes at once.

Shape legend: ``n`` detections, ``m`` annotated boxes, ``u`` detections that overlap an annotated box enough, ``A`` area
ranges, ``T`` IoU thresholds, ``S = A * T`` settings, area ranges first.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Objects:
    """Annotated boxes of all images, those of an image in the order of the file.

    Attributes:
        images: ``(m,)`` places of the images in their order.
        classes: ``(m,)`` places of the classes.
        boxes: ``(m, 4)`` x, y, width, height, fp64.
        areas: ``(m,)`` of the objects, in square pixels.
        ignored: ``(m,)`` regions that any number of detections may match, which then do not count.
    """

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    ignored: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> 'Objects':
        return Objects(*(values[chosen] for values in vars(self).values()))


@dataclass(frozen=True)
class Detections:
    """Detected boxes of all images.

    Attributes:
        images: ``(n,)`` places of the images in their order.
        classes: ``(n,)`` places of the classes.
        boxes: ``(n, 4)`` x, y, width, height, fp64.
        scores: ``(n,)``.
        excused: ``(n,)`` those that do not count if they match nothing.
    """

    images: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    excused: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> 'Detections':
        return Detections(*(values[chosen] for values in vars(self).values()))


@dataclass(frozen=True)
class Matches:
    """What detections match in each setting.

    Attributes:
        detections: ``(u,)`` indices of those that overlap an annotated box enough for the lowest threshold.
        right: ``(u, S)`` those that match an object.
        ignored: ``(u, S)`` those that match a region, or an object outside the area range.
    """

    detections: np.ndarray
    right: np.ndarray
    ignored: np.ndarray


def best_of_each_group(detections: Detections, num_classes: int, limit: int) -> Detections:
    """Sort by image, class and falling score, where equal scores keep their order, and keep ``limit`` of a group."""
    detections = detections[np.argsort(-detections.scores, kind='stable')]
    groups = detections.images.astype(np.int64) * num_classes + detections.classes
    order = np.argsort(groups, kind='stable')
    groups = groups[order]
    places = np.arange(len(groups)) - np.searchsorted(groups, groups)
    return detections[order[places < limit]]


def match(
    objects: Objects,
    detections: Detections,
    num_classes: int,
    areas: np.ndarray,
    thresholds: np.ndarray,
    pairs_at_once: int = 1 << 18,
) -> Matches:
    """Match detections of each image and class, the highest score first, as COCO defines it.

    A detection takes the free object of the highest IoU that is at least the threshold, the last one of equal ones;
    objects outside the area range and ignored regions only if there is no other. An ignored region is never taken, and
    its IoU is the part of the detection that it covers.

    Detections that overlap nothing enough need no matching. Of the others, the first of all groups are matched
    together, then the second of all groups, and so on.

    Args:
        objects (Objects): The annotated boxes.
        detections (Detections): As :func:`best_of_each_group` sorts them.
        num_classes (int): K.
        areas (np.ndarray): ``(A, 2)``, least and largest area.
        thresholds (np.ndarray): ``(T,)`` of IoU.
        pairs_at_once (int): Most pairs whose IoU is computed together, which bounds memory.

    Returns:
        Matches: of the settings.
    """
    of_objects = objects.images.astype(np.int64) * num_classes + objects.classes
    order = np.argsort(of_objects, kind='stable')
    objects, of_objects = objects[order], of_objects[order]
    of_detections = detections.images.astype(np.int64) * num_classes + detections.classes
    limits = np.minimum(thresholds, 1 - 1e-10)
    found, known, iou = _overlaps(objects, of_objects, detections, of_detections, limits.min(), pairs_at_once)
    if not len(found):
        nothing = np.zeros((0, len(areas) * len(thresholds)), bool)
        return Matches(found, nothing, nothing)
    is_first = np.append(True, found[1:] != found[:-1])
    chosen, place = found[is_first], np.cumsum(is_first) - 1  # (u,) and the place in it of each pair
    groups = of_detections[chosen]
    turns = np.arange(len(chosen)) - np.searchsorted(groups, groups)  # (u,)
    # by turn and detection; among its pairs the best one last
    order = np.argsort(iou, kind='stable')
    order = order[np.argsort(turns[place[order]] * len(chosen) + place[order], kind='stable')]
    known, iou, place = known[order], iou[order], place[order]
    counted = np.repeat(_counted(objects, areas), len(thresholds), axis=1)  # (m, S)
    least = np.tile(limits, len(areas))
    right, ignored = np.zeros((2, len(chosen), counted.shape[1]), bool)
    taken = np.zeros_like(counted)
    ends = np.searchsorted(turns[place], np.arange(turns.max() + 2))
    for start, end in zip(ends[:-1], ends[1:], strict=True):
        boxes, rows = known[start:end], place[start:end]
        possible = (iou[start:end, None] >= least) & ~taken[boxes]  # (pairs, S)
        # objects that count come before those that do not
        value = np.arange(1, end - start + 1, dtype=np.int32)[:, None] + np.int32(end - start) * counted[boxes]
        value *= possible
        firsts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
        best = np.maximum.reduceat(value, firsts, axis=0)  # (detections, S), 0 without a match
        row, setting = best.nonzero()
        box = boxes[(best[row, setting] - 1) % (end - start)]
        row = rows[firsts][row]
        right[row, setting] = counted[box, setting]
        ignored[row, setting] = ~counted[box, setting]
        taken[box, setting] = ~objects.ignored[box]
    return Matches(chosen, right, ignored)


def inside(areas: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """Whether each of ``(n,)`` areas is in each of ``(A, 2)`` ranges, both ends included: ``(n, A)``."""
    return (areas[:, None] >= ranges[:, 0]) & (areas[:, None] <= ranges[:, 1])


def _counted(objects: Objects, areas: np.ndarray) -> np.ndarray:
    """Whether each object counts in each area range, ``(m, A)``."""
    return inside(objects.areas, areas) & ~objects.ignored[:, None]


def count_objects(objects: Objects, num_classes: int, areas: np.ndarray) -> np.ndarray:
    """Number of objects of each class in each area range, ``(K, A)``; ignored regions are none."""
    counts = np.zeros((num_classes, len(areas)), np.int64)
    np.add.at(counts, objects.classes, _counted(objects, areas))
    return counts


def _overlaps(
    objects: Objects,
    of_objects: np.ndarray,
    detections: Detections,
    of_detections: np.ndarray,
    least: float,
    pairs_at_once: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of a group whose IoU is at least ``least``: detections, objects, both ``(pairs,)`` and rising, and IoU."""
    first = np.searchsorted(of_objects, of_detections)
    counts = np.searchsorted(of_objects, of_detections, 'right') - first
    some = np.flatnonzero(counts)
    first, counts = first[some], counts[some]
    ends = np.cumsum(counts)
    found: list[tuple[np.ndarray, ...]] = [(some[:0], some[:0], np.zeros(0))]
    start = 0
    while start < len(some):
        done = ends[start] - counts[start]
        end = max(start + 1, int(np.searchsorted(ends, done + pairs_at_once, 'right')))
        number = counts[start:end]
        detection = np.repeat(some[start:end], number)
        box = np.arange(number.sum()) + np.repeat(first[start:end] - (ends[start:end] - number - done), number)
        iou = _iou(detections.boxes[detection], objects.boxes[box], objects.ignored[box])
        kept = iou >= least
        found.append((detection[kept], box[kept], iou[kept]))
        start = end
    return tuple(map(np.concatenate, zip(*found, strict=True)))


def _iou(boxes: np.ndarray, others: np.ndarray, covers: np.ndarray) -> np.ndarray:
    """IoU of pairs of boxes ``(p, 4)`` x, y, width, height; of ``covers (p,)`` the part of the first that is covered.

    The order of operations is that of pycocotools, so that the last digit is the same.
    """
    x, y, width, height = boxes.T
    other_x, other_y, other_width, other_height = others.T
    common = np.minimum(width + x, other_width + other_x) - np.maximum(x, other_x)
    common_height = np.minimum(height + y, other_height + other_y) - np.maximum(y, other_y)
    overlap = np.where((common > 0) & (common_height > 0), common * common_height, 0)
    area = width * height
    total = np.where(covers, area, area + other_width * other_height - overlap)
    return np.divide(overlap, total, out=np.zeros_like(overlap), where=overlap > 0)
