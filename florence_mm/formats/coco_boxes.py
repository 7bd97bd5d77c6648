"""COCO-format files for training: their boxes as numbers in one array, packed while the JSON is parsed."""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np

from florence_mm.errors import DataError

from .coco import check_images_and_categories, parse_coco_file, read_coco_file

_BOX = np.dtype([
    ('id', '<i8'), ('image_id', '<i8'), ('category_id', '<i8'), ('crowd', '?'),
    ('x', '<f8'), ('y', '<f8'), ('width', '<f8'), ('height', '<f8'),
])  # fmt: skip
_ROW = struct.Struct('<qqq?4d')


class CocoBoxes:
    """The boxes of a file, found by their image: 65 bytes a box, where an annotation as a dict takes 600.

    Args:
        boxes (np.ndarray): ``(n,)`` of the type that :func:`read_coco_boxes` packs.
    """

    def __init__(self, boxes: np.ndarray) -> None:
        self._boxes = boxes[np.argsort(boxes['image_id'], kind='stable')]
        self._image_ids = np.ascontiguousarray(self._boxes['image_id'])

    def __len__(self) -> int:
        return len(self._boxes)

    def of_image(self, image_id: int) -> list[tuple]:
        """``(id, category id, crowd, [x, y, width, height])`` of each box of an image, in the order of the file."""
        first, last = (np.searchsorted(self._image_ids, image_id, side) for side in ('left', 'right'))
        rows = self._boxes[first:last].tolist()
        return [(id_, category, crowd, box) for id_, _, category, crowd, *box in rows]


def read_coco_boxes(path: str | Path) -> tuple[dict, CocoBoxes]:
    """The content of a COCO-format file without its annotations, and their boxes.

    Of an annotation its ids, category, box and ``iscrowd`` are read. Checks are those of
    :func:`~florence_mm.formats.coco.read_coco_file`.

    Raises:
        FileNotFoundError, DataError: as there.
        DataError: an id has more than 64 bits, or is no whole number.
    """
    path = Path(path)
    content = parse_coco_file(path, _pack)
    images, categories = check_images_and_categories(path, content)
    rows = content.pop('annotations')
    if all(isinstance(row, bytes) for row in rows):
        packed = b''.join(rows)
        del rows
        boxes = np.frombuffer(packed, _BOX)
        if (
            len(np.unique(boxes['id'])) == len(boxes)
            and images.issuperset(np.unique(boxes['image_id']).tolist())
            and all(-(2**63) <= id_ < 2**63 for id_ in images)
            and categories.issuperset(np.unique(boxes['category_id']).tolist())
        ):
            return content, CocoBoxes(boxes)
    # slower and with every annotation in memory, but it says which one is wrong
    read_coco_file(path)
    raise DataError(f'{path}: an id is no whole number of 64 bits; number images, categories and annotations from 1')


def _pack(item: dict) -> dict | bytes:
    """An annotation that can be used as bytes, and any other object as it is."""
    box = item.get('bbox')
    if not isinstance(box, list) or len(box) != 4 or 'image_id' not in item:
        return item
    try:
        if all(_is_number(value) for value in box):
            ids = item['id'], item['image_id'], item['category_id']
            return _ROW.pack(*ids, bool(item.get('iscrowd', 0)), *box)
    except (KeyError, OverflowError, struct.error):
        return item
    return item


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
