"""Merging of annotations that say the same, and of a model's predictions with the old ones.

Two items say the same if task, caption and text are equal (after normalisation) and, of regions, the boxes overlap by
``iou`` at least; pairs are made one to one, those that overlap most first. With scores p of the old one and q of the
new one, an unknown p being ``prior`` and an unknown q 1:

- **agreement** raises: p becomes 1 - (1 - p)(1 - q), and the box is the average of both by p and q (an outline or
  quadrilateral is that of the higher score);
- **contradiction** lowers: p is multiplied by 1 - q for the best new item that is at the same place with another
  text, or has the same text at another place near by (an overlap from ``near`` up, without an old one of its own);
- **silence** lowers: an old region without agreement is multiplied by ``unseen``, if no contradiction lowers it more;
- a new item without an old one is added if its score is at least ``add``.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from florence_mm.formats.tasks import DIGITS
from florence_mm.utils.boxes import box_iou

from . import annotation_reasons as reasons
from .annotation_items import Item
from .annotation_options import MergeOptions


def merge_sources(items: Sequence[Item], options: MergeOptions) -> list[Item]:
    """Merge items of several sources that say the same: agreement only, as vocabularies differ.

    Args:
        items: of one picture, in the order of the sources. What has a reason takes no part.
        options: see :class:`.annotation_options.MergeOptions`.

    Returns:
        as many items; those that another one has taken up have the reason ``merged``.
    """
    merged = list(items)
    for source in list(dict.fromkeys(item.source for item in items))[1:]:
        old = [n for n, item in enumerate(merged) if item.drop is None and _before(items, n, source)]
        new = [n for n, item in enumerate(merged) if item.drop is None and items[n].source == source]
        for first, second in _pairs([merged[n] for n in old], [merged[n] for n in new], options.iou):
            merged[old[first]] = _agree(merged[old[first]], merged[new[second]], options)
            merged[new[second]] = replace(merged[new[second]], drop=reasons.MERGED)
    return merged


def _before(items: Sequence[Item], index: int, source: str) -> bool:
    sources = list(dict.fromkeys(item.source for item in items))
    return sources.index(items[index].source) < sources.index(source)


def merge_predictions(
    old: Sequence[Item], new: Sequence[Item], options: MergeOptions, tasks: Collection[str]
) -> list[Item]:
    """Merge a model's predictions with the old annotations of a picture by the rule above.

    Args:
        old: the annotations; what has a reason takes no part.
        new: the predictions; the same.
        options: see :class:`.annotation_options.MergeOptions`.
        tasks: tasks that the model answers; of others its silence says nothing.

    Returns:
        the old items with their new scores and boxes, and then the new ones: kept, ``merged`` or ``not_added``.
    """
    there = [n for n, item in enumerate(old) if item.drop is None]
    found = [n for n, item in enumerate(new) if item.drop is None]
    pairs = _pairs([old[n] for n in there], [new[n] for n in found], options.iou)
    partner = {there[first]: found[second] for first, second in pairs}
    taken = set(partner.values())
    free = [new[n] for n in found if n not in taken]
    merged = []
    for index, item in enumerate(old):
        if item.drop is None:
            others = [new[n] for n in found if n != partner.get(index)]
            doubt = _contradiction(item, others, free, options)
            if index in partner:
                item = _agree(item, new[partner[index]], options)
            silent = index not in partner and item.box is not None and item.task in tasks
            factor = min(options.unseen if silent else 1.0, 1 - doubt)
            if factor < 1:
                item = replace(item, score=round(_score(item, options.prior) * factor, DIGITS))
        merged.append(item)
    for index, item in enumerate(new):
        if index in taken:
            item = replace(item, drop=reasons.MERGED)
        elif item.drop is None and _score(item, 1.0) < options.add:
            item = replace(item, drop=reasons.NOT_ADDED)
        merged.append(item)
    return merged


def _score(item: Item, unknown: float) -> float:
    return unknown if item.score is None else item.score


def _pairs(old: Sequence[Item], new: Sequence[Item], iou: float) -> list[tuple[int, int]]:
    """Pairs of what says the same, one to one; the largest overlap first, of equal ones the earliest."""
    candidates = []
    for first, one in enumerate(old):
        for second, other in enumerate(new):
            if one.key == other.key:
                overlap = _overlap(one, other)
                if overlap >= iou:
                    candidates.append((-overlap, first, second))
    pairs: list[tuple[int, int]] = []
    for _, first, second in sorted(candidates):
        if all(first != a and second != b for a, b in pairs):
            pairs.append((first, second))
    return pairs


def _overlap(one: Item, other: Item) -> float:
    """Intersection over union; 1 of two without boxes, which are of the whole picture."""
    if one.box is None or other.box is None:
        return float(one.box is None and other.box is None)
    return float(box_iou(np.array([one.box]), np.array([other.box]))[0, 0])


def _agree(old: Item, new: Item, options: MergeOptions) -> Item:
    p, q = _score(old, options.prior), _score(new, 1.0)
    score = round(1 - (1 - p) * (1 - q), DIGITS)
    if old.box is None or not options.move:
        return replace(old, score=score)
    if old.polygons or old.quad or new.polygons or new.quad:  # outlines have no average
        better = new if q > p and (new.polygons or new.quad or not (old.polygons or old.quad)) else old
        return replace(old, score=score, box=better.box, polygons=better.polygons, quad=better.quad)
    weight = q / (p + q) if p + q else 0.0
    box = tuple(round(a + weight * (b - a), DIGITS) for a, b in zip(old.box, new.box, strict=True))
    return replace(old, score=score, box=box)


def _contradiction(item: Item, others: Sequence[Item], free: Sequence[Item], options: MergeOptions) -> float:
    """Score of the best prediction that contradicts an item; 0 if there is none."""
    if item.box is None:
        return 0.0
    scores = [
        _score(other, 1.0)
        for other in others
        if other.place == item.place and other.key != item.key and _overlap(item, other) >= options.iou
    ]
    scores += [
        _score(other, 1.0)
        for other in free
        if other.key == item.key and options.near <= _overlap(item, other) < options.iou
    ]
    return max(scores, default=0.0)
