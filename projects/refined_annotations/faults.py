"""Faults planted in the region annotations of the embedded scenes: shifted boxes, and renamed digits."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from florence_mm.corpora.scene_facts import Scene
from florence_mm.formats.tasks import TaskRow
from florence_mm.language.prompts import get_class_names
from florence_mm.language.regions import Box, Region
from florence_mm.utils.boxes import box_iou

SHIFTED, RENAMED = 'shifted', 'renamed'
#: Overlap of a shifted box with its digit; it overlaps less with other digits of that name too.
OVERLAP = (0.05, 0.45)
_TRIES = 1000


class Planted(NamedTuple):
    """Annotations with faults.

    Attributes:
        rows: a row a picture, of the task ``detection``.
        faults: for each region of each row what is wrong with it; None if it is right.
    """

    rows: list[TaskRow]
    faults: list[list[str | None]]


def true_rows(scenes: Sequence[Scene]) -> list[TaskRow]:
    """The true annotations: the name and the box of each digit, a row a scene that has any."""
    rows = []
    for scene in scenes:
        size = np.array([scene.width, scene.height])
        regions = []
        for digit in scene.digits:
            corners = np.array([digit.box[:2], np.add(digit.box[:2], digit.box[2:])]) / size
            regions.append(Region(digit.name, (tuple(corners.ravel().tolist()),)))
        if regions:
            rows.append(TaskRow(scene.file_name, 'detection', regions=tuple(regions)))
    return rows


def plant_faults(rows: Sequence[TaskRow], share: float, seed: int) -> Planted:
    """Shift the boxes of one half of the chosen regions, and rename the other half.

    Args:
        rows: true annotations of the task ``detection``, one box a region.
        share: of the regions that get a fault.
        seed: of the choice and the faults.

    Raises:
        ValueError: the share is out of range, or a box cannot be shifted within its picture.
    """
    if not 0 <= share <= 1:
        raise ValueError(f'share is {share}; give a share of the regions, from 0 to 1')
    rng = np.random.default_rng([seed, *b'planted faults'])
    places = [(n, k) for n, row in enumerate(rows) for k in range(len(row.regions))]
    chosen = rng.permutation(len(places))[: round(share * len(places))].tolist()
    changed = [list(row.regions) for row in rows]
    faults: list[list[str | None]] = [[None] * len(row.regions) for row in rows]
    for turn, place in enumerate(chosen):
        n, k = places[place]
        region = rows[n].regions[k]
        if turn % 2:
            others = [name for name in get_class_names('digits') if name != region.text]
            changed[n][k], faults[n][k] = replace(region, text=others[rng.integers(len(others))]), RENAMED
        else:
            same = np.array([other.boxes[0] for other in rows[n].regions if other.text == region.text])
            box = _shift(rng, np.array(region.boxes[0]), same, rows[n].image)
            changed[n][k], faults[n][k] = replace(region, boxes=(box,)), SHIFTED
    shown = [replace(row, regions=tuple(regions)) for row, regions in zip(rows, changed, strict=True)]
    return Planted(shown, faults)


def _shift(rng: np.random.Generator, box: np.ndarray, same: np.ndarray, image: str) -> Box:
    size = box[2:] - box[:2]
    for _ in range(_TRIES):
        moved = box + np.tile(rng.uniform(-1, 1, 2) * size, 2)
        overlaps = box_iou(moved[None], np.concatenate([box[None], same]))[0]
        if moved.min() >= 0 and moved.max() <= 1 and overlaps[0] > OVERLAP[0] and overlaps.max() < OVERLAP[1]:
            return tuple(moved.tolist())
    raise ValueError(f'no box of {image} can be shifted from {box.tolist()}; draw scenes with smaller digits')
