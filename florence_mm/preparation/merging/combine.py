"""Combining the boxes and annotated classes that several sources have for one picture."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from florence_mm.utils.boxes import box_iou

from .store import StoredBox, StoredImage
from .taxonomy import Taxonomy


@dataclass
class Combined:
    """A picture of the merged file, made of one image per source.

    Attributes:
        sources: Numbers of the sources that have it.
        boxes: Class id and box, in their final order.
        negative: Classes annotated in the picture that have no box (LVIS's ``neg_category_ids``); None if every source
            annotates all its classes in every image.
        partial: Classes with boxes that are not annotated completely (LVIS's ``not_exhaustive_category_ids``); None if
            ``negative`` is.
        dropped: ``(source of the box kept, source of the box dropped)`` for each duplicate.
    """

    sources: tuple[int, ...]
    boxes: list[tuple[int, StoredBox]]
    negative: list[int] | None = None
    partial: list[int] | None = None
    dropped: list[tuple[int, int]] = field(default_factory=list)


def combine(images: list[StoredImage], boxes: list[StoredBox], taxonomy: Taxonomy, iou_threshold: float) -> Combined:
    """Combine the sources of a picture: all boxes without duplicates, and all classes annotated by any source."""
    kept, dropped = drop_duplicates(
        [(taxonomy.class_of[box.source][box.category], box) for box in boxes], iou_threshold
    )
    combined = Combined(tuple(image.source for image in images), kept, dropped=dropped)
    if any(image.negative is not None for image in images):
        annotated: set[int] = set()
        for image in images:
            annotated |= annotated_classes(image, boxes, taxonomy)
        positive = {class_ for class_, _ in kept}
        combined.negative = sorted(annotated - positive)
        combined.partial = sorted(positive - annotated)
    return combined


def annotated_classes(image: StoredImage, boxes: Iterable[StoredBox], taxonomy: Taxonomy) -> set[int]:
    """Classes annotated in an image of one source: every object has a box, or the absence was verified.

    A class made of several categories of the source ("man" and "woman" as "person") is annotated if all of them are.
    """
    members = taxonomy.members[image.source]
    if image.negative is None:
        return set(members)
    boxed = {box.category for box in boxes if box.source == image.source}
    verified = (boxed | set(image.negative)) - set(image.partial)
    touched = {taxonomy.class_of[image.source][category] for category in verified}
    return {class_ for class_ in touched if members[class_] <= verified}


def drop_duplicates(
    boxes: list[tuple[int, StoredBox]], iou_threshold: float
) -> tuple[list[tuple[int, StoredBox]], list[tuple[int, int]]]:
    """Drop duplicate boxes of one object from several sources, or from several categories of one source.

    Boxes of a class are processed in layers, one per source and category. The boxes of a layer are matched one to one
    with those kept so far, by falling IoU; a match with an IoU of at least ``iou_threshold`` is a duplicate. Boxes of
    one layer are never duplicates of each other, and crowds are never duplicates.

    Returns:
        tuple: Class id and box of the boxes kept, sorted by class, source, category and position; and
        ``(source kept, source dropped)`` for each duplicate.
    """
    # sorted, so that the order in the input files does not matter
    ordered = sorted(boxes, key=lambda entry: (entry[0], _layer(entry[1]), entry[1][2:8], entry[1].score or 0.0))
    kept: list[tuple[int, StoredBox]] = []
    dropped: list[tuple[int, int]] = []
    for class_, entries in groupby(ordered, key=lambda entry: entry[0]):
        same_class: list[StoredBox] = []
        for _, layer_entries in groupby((box for _, box in entries), key=_layer):
            layer = list(layer_entries)
            matches = _match(same_class, layer, iou_threshold) if same_class else {}
            dropped += [(same_class[first].source, layer[second].source) for second, first in sorted(matches.items())]
            same_class += [box for index, box in enumerate(layer) if index not in matches]
        kept += [(class_, box) for box in same_class]
    return kept, dropped


def _layer(box: StoredBox) -> tuple[int, str]:
    return box.source, str(box.category)


def _match(kept: list[StoredBox], layer: list[StoredBox], iou_threshold: float) -> dict[int, int]:
    """Match greedily by IoU: index in ``layer`` -> index in ``kept``."""
    iou = box_iou(np.array([box[2:6] for box in kept]), np.array([box[2:6] for box in layer]))
    iou[[bool(box.crowd) for box in kept]] = 0
    iou[:, [bool(box.crowd) for box in layer]] = 0
    matches: dict[int, int] = {}
    used: set[int] = set()
    first, second = np.nonzero(iou >= iou_threshold)
    for index in np.argsort(-iou[first, second], kind='stable'):
        if second[index] not in matches and first[index] not in used:
            matches[int(second[index])] = int(first[index])
            used.add(first[index])
    return matches
