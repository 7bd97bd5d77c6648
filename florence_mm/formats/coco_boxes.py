"""Compact boxes of COCO-format files for training: one array, packed while the JSON is parsed."""

import struct
from pathlib import Path

import numpy as np

from florence_mm.errors import DataError

from .coco import (
    annotation_problem,
    check_images_and_categories,
    is_ignored,
    parse_coco_file,
    read_coco_file,
    refuse_fractions,
)

_BOX = np.dtype([
    ('id', '<i8'), ('image_id', '<i8'), ('category_id', '<i8'), ('ignored', '?'),
    ('x', '<f8'), ('y', '<f8'), ('width', '<f8'), ('height', '<f8'),
])  # fmt: skip
_ROW = struct.Struct('<qqq?4d')


class CocoBoxes:
    """All boxes of a COCO-format file, looked up by image; 65 bytes per box, where an annotation dict takes 600.

    Args:
        boxes (np.ndarray): ``(n,)`` of the type that :func:`read_coco_boxes` packs.
    """

    def __init__(self, boxes: np.ndarray) -> None:
        self._boxes = boxes[np.argsort(boxes['image_id'], kind='stable')]
        self._image_ids = np.ascontiguousarray(self._boxes['image_id'])

    def __len__(self) -> int:
        return len(self._boxes)

    def for_image(self, image_id: int) -> list[tuple]:
        """Return ``(id, category id, ignored, [x, y, width, height])`` of each box of an image, in file order."""
        first, last = (np.searchsorted(self._image_ids, image_id, side) for side in ('left', 'right'))
        rows = self._boxes[first:last].tolist()
        return [(id_, category, ignored, box) for id_, _, category, ignored, *box in rows]


def read_coco_boxes(path: str | Path) -> tuple[dict, CocoBoxes]:
    """Read a COCO-format file: its content without the annotations, and their boxes.

    Annotations keep ids, category, box and whether they are to be ignored (``iscrowd`` or ``ignore``). The file is
    checked as by :func:`~florence_mm.formats.coco.read_coco_file`.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: :func:`~florence_mm.formats.coco.read_coco_file` refuses the file, or an id is not a 64-bit integer.
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
            refuse_fractions(path, (row.tolist()[4:] for row in boxes))
            return content, CocoBoxes(boxes)
    # slower, and holds every annotation in memory, but names the wrong one
    read_coco_file(path)
    raise DataError(f'{path}: an id is no whole number of 64 bits; number images, categories and annotations from 1')


def _pack(item: dict) -> dict | bytes:
    """Pack a usable annotation into bytes; return any other object unchanged."""
    if 'bbox' not in item or annotation_problem(item) is not None:
        return item
    ids = item.get('id'), item.get('image_id'), item.get('category_id')
    if not all(type(id_) is int for id_ in ids):
        return item
    try:
        return _ROW.pack(*ids, is_ignored(item), *item['bbox'])
    except struct.error:  # not of 64 bits
        return item
