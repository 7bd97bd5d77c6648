"""One picture out of the images and boxes that several sources have of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from florence_mm.utils.boxes import box_iou

from .store import StoredBox, StoredImage
from .taxonomy import Taxonomy


@dataclass
class Combined:
    """A picture of the merged file.

    Attributes:
        sources: Numbers of the sources it is in.
        boxes: Class id and box, in their final order.
        negative: Classes annotated in it without a box; None where all sources annotate all their classes.
        partial: Classes with boxes of which not every object has one; None likewise.
        dropped: ``(source of the box kept, source of the box dropped)`` for each duplicate.
    """

    sources: tuple[int, ...]
    boxes: list[tuple[int, StoredBox]]
    negative: list[int] | None = None
    partial: list[int] | None = None
    dropped: list[tuple[int, int]] = field(default_factory=list)


def combine(images: list[StoredImage], boxes: list[StoredBox], taxonomy: Taxonomy, iou_threshold: float) -> Combined:
    """Unite what sources say about a picture: all boxes without duplicates, and all classes that any annotates."""
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
    """The classes of which a source's image has every object's box.

    A class made of several of the source's categories ("man" and "woman" as "person") is annotated where all of
    them are.
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
    """Keep one box of each object that several sources, or several categories of one source, have boxes of.

    Boxes of one class are taken source by source, and within a source category by category. One layer's boxes are
    matched one to one with those kept so far, the best IoU first; a box matched with an IoU of at least
    ``iou_threshold`` is a duplicate. Boxes of one layer are never duplicates of each other, and a box around many
    objects ("crowd") is never one.

    Returns:
        tuple: Class id and box of those kept, sorted by class, source, category and place; and for each duplicate
        ``(source kept, source dropped)``.
    """
    # the order of the input files must not show
    ordered = sorted(boxes, key=lambda entry: (entry[0], _layer(entry[1]), entry[1][2:8], entry[1].score or 0.0))
    kept: list[tuple[int, StoredBox]] = []
    dropped: list[tuple[int, int]] = []
    for class_, entries in groupby(ordered, key=lambda entry: entry[0]):
        of_class: list[StoredBox] = []
        for _, layer_entries in groupby((box for _, box in entries), key=_layer):
            layer = list(layer_entries)
            matches = _match(of_class, layer, iou_threshold) if of_class else {}
            dropped += [(of_class[first].source, layer[second].source) for second, first in sorted(matches.items())]
            of_class += [box for index, box in enumerate(layer) if index not in matches]
        kept += [(class_, box) for box in of_class]
    return kept, dropped


def _layer(box: StoredBox) -> tuple[int, str]:
    return box.source, str(box.category)


def _match(kept: list[StoredBox], layer: list[StoredBox], iou_threshold: float) -> dict[int, int]:
    """Index in ``layer`` -> index in ``kept``, greedily by IoU."""
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
