"""Reading COCO-format sources (COCO, LVIS, Objects365) into the store."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from florence_mm.errors import DataError
from florence_mm.formats.coco import (
    FractionCheck,
    annotation_problem,
    image_file_name,
    is_ignored,
    require_name,
)
from florence_mm.utils.limits import limit_of
from florence_mm.utils.numbers import is_finite

from .json_lists import iter_list, require
from .sources import SourceSpec
from .store import MergeStore, StoredBox, StoredImage
from .taxonomy import Categories

LARGEST_SIDE = 2**31 - 1
_COCO_2014 = re.compile(r'COCO_(?:train|val|test)\d{4}_(\d{12})')


@dataclass
class SourceCounts:
    """Counts of a source: images, boxes kept, boxes clipped at the image border, boxes left out as unusable."""

    images: int = 0
    boxes: int = 0
    clipped: int = 0
    skipped: int = 0


class BoxIntake:
    """Check the boxes of one source and store them.

    Args:
        store: Where the boxes go.
        source: Number of the source.
        counts: Counts of the source, which are updated.
        max_bad_boxes: How many boxes may lack area within their image: a number, or below 1 a fraction.
    """

    def __init__(self, store: MergeStore, source: int, counts: SourceCounts, max_bad_boxes: float) -> None:
        self._store, self._source, self._counts, self._max_bad_boxes = store, source, counts, max_bad_boxes
        self._first_bad = ''

    def add(
        self,
        image: tuple[int, int, int],
        category: int | str,
        corners: tuple[float, float, float, float],
        where: str,
        area: float | None = None,
        crowd: bool = False,
        score: float | None = None,
    ) -> None:
        """Clip a box to its image and store it.

        Args:
            image: Row, width and height of the image.
            category: Category id in the source.
            corners: ``x1, y1, x2, y2`` in pixels.
            where: File and entry, for messages.
            area: Area of the object in square pixels, if known; else that of the clipped box.
            crowd: Whether the box holds many objects.
            score: Score of the detector, if one made the box.
        """
        row, width, height = image
        x1, y1, x2, y2 = corners
        inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        inside = tuple(round(value, 2) for value in inside)
        if not all(map(math.isfinite, corners)) or inside[2] <= inside[0] or inside[3] <= inside[1]:
            self._counts.skipped += 1
            self._first_bad = self._first_bad or (
                f'{where}: the box from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) has no area within its image of '
                f'{width}x{height} pixels'
            )
            return
        # sources round differently, so less than a pixel outside is not counted
        self._counts.clipped += max(-x1, -y1, x2 - width, y2 - height) >= 1
        box_area = (inside[2] - inside[0]) * (inside[3] - inside[1])
        area = round(area, 2) if area is not None and 0 < area <= box_area else round(box_area, 2)
        self._store.add_box(row, StoredBox(self._source, category, *inside, area, int(crowd), score))
        self._counts.boxes += 1

    def finish(self) -> None:
        """Check the number of boxes left out.

        Raises:
            DataError: more than ``max_bad_boxes`` were left out; the message names the first.
        """
        bad, total = self._counts.skipped, self._counts.skipped + self._counts.boxes
        allowed = limit_of(self._max_bad_boxes, total)
        if bad > allowed:
            raise DataError(
                f'{self._first_bad}, as {bad} of {total} boxes, and {allowed:g} may be left out; correct them or raise '
                'max_bad_boxes'
            )


def picture_key(collection: str, file_name: str, shared: bool) -> str:
    """Key of the picture that an image shows: collection and file name; equal keys are the same picture.

    If sources share the collection, folder and extension are ignored and a 2014 name of COCO equals the 2017 one;
    within a single source, folders distinguish pictures.
    """
    if shared:
        stem = PurePosixPath(file_name).stem
        match = _COCO_2014.fullmatch(stem)
        file_name = match[1] if match else stem
    return f'{collection}/{file_name}'


def read_categories(spec: SourceSpec) -> Categories:
    """Read the categories of a COCO-format file: id -> name.

    Raises:
        DataError: an id occurs twice, or an entry lacks ``id`` or ``name``.
    """
    categories: Categories = {}
    for index, item in enumerate(iter_list(spec.ann_file, 'categories')):
        where = f'{spec.ann_file}: categories[{index}]'
        id_, name = require(item, 'id', int, where), require_name(require(item, 'name', str, where), where, 'name')
        if id_ in categories:
            raise DataError(f'{where}: the category id {id_} is also that of {categories[id_]!r}; ids must differ')
        categories[id_] = name
    return categories


def read_coco(
    spec: SourceSpec, source: int, categories: Categories, shared: bool, store: MergeStore, max_bad_boxes: float
) -> SourceCounts:
    """Read images and annotations of a COCO-format file into the store.

    A file whose images have ``neg_category_ids`` is federated: only verified classes are annotated in each image (LVIS,
    and the output of ``pseudo_boxes.py``). The format ``'lvis'`` requires it.

    Raises:
        DataError: an entry is unusable; the message names it.
    """
    counts = SourceCounts()
    federated = spec.format == 'lvis' or None
    for index, item in enumerate(iter_list(spec.ann_file, 'images')):
        where = f'{spec.ann_file}: images[{index}]'
        id_ = _image_id(item, 'id', where)
        width, height = require(item, 'width', int, where), require(item, 'height', int, where)
        if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE):
            raise DataError(f'{where}: the image is {width}x{height} pixels large; expected its width and height')
        if federated is None:
            federated = 'neg_category_ids' in item
        if federated != ('neg_category_ids' in item):
            raise DataError(
                f'{where}: `neg_category_ids` is {"missing" if federated else "there"}, unlike in '
                f'{"the format lvis" if spec.format == "lvis" else "the first image"}; all images have it or none'
            )
        lists = (None, None)
        if federated:
            lists = tuple(
                _category_list(item, key, categories, where)
                for key in ('neg_category_ids', 'not_exhaustive_category_ids')
            )
        name = require_name(image_file_name(item, where), where, 'file_name')
        image = StoredImage(source, id_, spec.prefix + name, width, height, *lists)
        store.add_image(image, picture_key(spec.images, name, shared), where)
        counts.images += 1
    intake = BoxIntake(store, source, counts, max_bad_boxes)
    fractions = FractionCheck()
    for index, item in enumerate(iter_list(spec.ann_file, 'annotations')):
        where = f'{spec.ann_file}: annotations[{index}]'
        image_id = _image_id(item, 'image_id', where)
        image = store.find_image(source, image_id)
        if image is None:
            raise DataError(f'{where}: there is no image with the id {image_id!r} in the list `images`')
        category = require(item, 'category_id', int, where)
        if category not in categories:
            raise DataError(f'{where}: there is no category with the id {category} in the list `categories`')
        x, y, w, h = _box(item, where)
        fractions.add(item['bbox'])
        area, score = item.get('area'), item.get('score')
        intake.add(image, category, (x, y, x + w, y + h), where, area, is_ignored(item), score)
    fractions.finish(spec.ann_file)
    intake.finish()
    return counts


def _category_list(item: Mapping, key: str, categories: Categories, where: str) -> tuple:
    ids = item.get(key, [])
    if not isinstance(ids, list):
        raise DataError(f'{where}: `{key}` is {ids!r}; expected a list of category ids')
    unknown = [id_ for id_ in ids if type(id_) is not int or id_ not in categories]
    if unknown:
        raise DataError(f'{where}: `{key}` names the category {unknown[0]!r}, which is not in the list `categories`')
    return tuple(sorted(ids))


def _image_id(item: Mapping, key: str, where: str) -> int | str:
    id_ = require(item, key, (int, str), where)
    if isinstance(id_, int) and not -(2**63) <= id_ < 2**63:
        raise DataError(f'{where}: `{key}` is {id_}; expected a whole number of 64 bits')
    if isinstance(id_, str):
        require_name(id_, where, key)
    return id_


def _box(item: Mapping, where: str) -> list[float]:
    box = require(item, 'bbox', list, where)
    problem = annotation_problem(item)
    if problem is not None:
        raise DataError(f'{where} has {problem}')
    score = item.get('score')
    if score is not None and not is_finite(score):
        raise DataError(f'{where}: `score` is {score!r}; expected a number')
    return box
