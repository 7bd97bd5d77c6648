"""Merging the annotations of several detection sets into one file in COCO's format."""

import csv
import json
import os
import shutil
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from mmengine.logging import print_log

from florence_mm.errors import DataError
from florence_mm.formats.coco import image_file_name
from florence_mm.utils.files import refuse_overwriting, replacing, write_atomic
from florence_mm.utils.limits import check_limit
from florence_mm.utils.progress import ProgressLog

from .combine import Combined, combine
from .json_lists import iter_list
from .open_images import read_class_descriptions, read_open_images
from .readers import SourceCounts, picture_key, read_categories, read_coco
from .sources import MergePlan
from .store import MergeStore, StoredImage
from .taxonomy import Taxonomy

_CATEGORIES = {'coco': read_categories, 'lvis': read_categories, 'openimages': read_class_descriptions}
_READERS = {'coco': read_coco, 'lvis': read_coco, 'openimages': read_open_images}


@dataclass(frozen=True)
class MergeResult:
    """The files written by a merge, and their size.

    Attributes:
        out: The merged annotations.
        report: JSON with counts per source, the categories each class is made of, and unused synonyms.
        merged_images: CSV of the pictures that several sources have.
        images, boxes, classes: Their numbers in ``out``.
    """

    out: Path
    report: Path
    merged_images: Path
    images: int
    boxes: int
    classes: int


def merge_detection(
    plan: MergePlan, out: str | Path, iou_threshold: float = 0.7, max_bad_boxes: float = 0.01
) -> MergeResult:
    """Merge the sources of ``plan`` into ``out``, with ``*.report.json`` and ``*.merged_images.csv`` beside it.

    Inputs are streamed through an SQLite file beside ``out``, so that memory does not grow with them. The result does
    not depend on the order of entries in the input files. The order of the sources decides which of two boxes of one
    object is kept (:func:`~florence_mm.preparation.merging.combine.drop_duplicates`). All three files appear once
    everything is done.

    Args:
        plan (MergePlan): What to merge.
        out (str or Path): The file to write, ending in ``.json``.
        iou_threshold (float): From this IoU on, boxes of one class from two sources are the same object.
        max_bad_boxes (int or float): How many boxes of a source without area in their image may be left out: a number,
            or below 1 a fraction.

    Raises:
        FileNotFoundError: an input is missing.
        DataError: an input or an argument is unusable; the message names file and entry.
        UsageError: an output is one of the inputs.
    """
    out = Path(out)
    if out.suffix != '.json':
        raise DataError(f'the merged file is {out}; expected a name that ends in .json')
    if not 0 < iou_threshold <= 1:
        raise DataError(f'the IoU threshold is {iou_threshold}; expected a number above 0, up to 1')
    check_limit(max_bad_boxes, 'max_bad_boxes', 'boxes')
    report_file, csv_file = out.with_suffix('.report.json'), out.with_suffix('.merged_images.csv')
    inputs = [path for spec in plan.sources for path in spec.files()] + [entry['ann_file'] for entry in plan.exclude]
    for path in (out, report_file, csv_file):
        refuse_overwriting(path, inputs, 'the merged file')
    out.parent.mkdir(parents=True, exist_ok=True)
    collections = Counter(spec.images for spec in plan.sources)
    categories = [_CATEGORIES[spec.format](spec) for spec in plan.sources]
    names = [spec.name for spec in plan.sources]
    taxonomy = Taxonomy(list(zip(names, categories, strict=True)), plan.synonyms)
    store_file, boxes_file = (out.with_name(f'.{out.name}.{os.getpid()}.{part}') for part in ('sqlite', 'boxes'))
    store = MergeStore(store_file)
    try:
        counts = []
        for number, spec in enumerate(plan.sources):
            shared = collections[spec.images] > 1
            counts.append(_READERS[spec.format](spec, number, categories[number], shared, store, max_bad_boxes))
            if counts[-1].skipped:
                print_log(f'{spec.ann_file}: left {counts[-1].skipped} boxes without area out', 'current')
        _exclude(plan, collections, store)
        total, excluded = store.number_pictures()
        if not total:
            raise DataError(f'`exclude` leaves none of the {excluded} images of the sources; correct the plan')
        with replacing(out) as new_out, replacing(csv_file) as new_csv:  # the merged file appears last
            with ExitStack() as stack:
                paths = (new_out, boxes_file, new_csv)
                files = [stack.enter_context(path.open('w', encoding='utf-8', newline='\n')) for path in paths]
                writer = _Writer(names, taxonomy, *files)
                progress = ProgressLog(f'writing {out}', total)
                for number, images, boxes in store.pictures():
                    writer.add(number, images, combine(images, boxes, taxonomy, iou_threshold))
                    progress.update(number)
                writer.finish(boxes_file)
            report = writer.report(plan, counts) | {
                'iou_threshold': iou_threshold,
                'excluded_images': excluded,
                'unused_synonyms': taxonomy.unused,
                'classes': writer.described_classes(),
            }
            write_atomic(report_file, json.dumps(report, indent=1, ensure_ascii=False) + '\n')
    finally:
        store.close()
        boxes_file.unlink(missing_ok=True)
    return MergeResult(out, report_file, csv_file, total, writer.boxes, len(taxonomy.classes))


def _exclude(plan: MergePlan, collections: Counter, store: MergeStore) -> None:
    for entry in plan.exclude:
        for index, item in enumerate(iter_list(entry['ann_file'], 'images')):
            name = image_file_name(item, f'{entry["ann_file"]}: images[{index}]')
            store.exclude(picture_key(entry['images'], name, collections[entry['images']] > 1))


class _Writer:
    """Writes pictures one by one, images and boxes to separate files, which :meth:`finish` joins."""

    def __init__(self, names: list[str], taxonomy: Taxonomy, out: TextIO, boxes: TextIO, merged_images: TextIO) -> None:
        self._names, self._taxonomy, self._out, self._boxes = names, taxonomy, out, boxes
        self._csv = csv.writer(merged_images, lineterminator='\n')
        self._csv.writerow(['image_id', 'file_name', 'sources', 'source_image_ids', 'boxes', 'duplicates_dropped'])
        self.boxes = 0
        self._shared = Counter()
        self._dropped: Counter[tuple[int, int]] = Counter()
        self._by_class: Counter[tuple[int, int, int | str]] = Counter()
        self._combinations: dict[tuple[int, ...], bool] = {}
        categories = [{'id': id_, 'name': name} for id_, name in enumerate(taxonomy.classes, 1)]
        out.write('{"categories": [\n' + ',\n'.join(map(_dump, categories)) + '\n],\n"images": [')

    def add(self, number: int, images: list[StoredImage], picture: Combined) -> None:
        first = images[0]
        entry: dict[str, Any] = {
            'id': number,
            'file_name': first.file_name,
            'width': first.width,
            'height': first.height,
            'source': self._name(picture.sources),
        }
        federated = picture.negative is not None
        if federated:
            entry['neg_category_ids'] = picture.negative
            entry['not_exhaustive_category_ids'] = picture.partial
        self._combinations[picture.sources] = federated
        self._out.write((',\n' if number > 1 else '\n') + _dump(entry))
        for class_, box in picture.boxes:
            self.boxes += 1
            annotation = {
                'id': self.boxes,
                'image_id': number,
                'category_id': class_,
                'bbox': [box.x1, box.y1, round(box.x2 - box.x1, 2), round(box.y2 - box.y1, 2)],
                'area': box.area,
                'iscrowd': box.crowd,
            }
            if box.score is not None:
                annotation['score'] = box.score
            self._boxes.write((',\n' if self.boxes > 1 else '\n') + _dump(annotation))
            self._by_class[class_, box.source, box.category] += 1
        self._dropped.update(picture.dropped)
        if len(images) > 1:
            self._shared.update(picture.sources)
            ids = ' '.join(str(image.id) for image in images)
            row = [number, first.file_name, self._name(picture.sources), ids, len(picture.boxes), len(picture.dropped)]
            self._csv.writerow(row)

    def finish(self, boxes: Path) -> None:
        """Append the boxes and the sources."""
        self._out.write('\n],\n"annotations": [')
        self._boxes.flush()
        with boxes.open(encoding='utf-8') as file:
            shutil.copyfileobj(file, self._out)
        sources = []
        for numbers, federated in sorted(self._combinations.items()):
            classes = sorted(set().union(*(self._taxonomy.members[number] for number in numbers)))
            source = {'name': self._name(numbers), 'category_ids': classes}
            sources.append(source | {'federated': True} if federated else source)
        self._out.write('\n],\n"sources": [\n' + ',\n'.join(map(_dump, sources)) + '\n]}\n')

    def report(self, plan: MergePlan, counts: list[SourceCounts]) -> dict:
        """Counts per source."""
        dropped = Counter()
        for (_, source), count in self._dropped.items():
            dropped[source] += count
        sources = [
            {
                'name': spec.name,
                'format': spec.format,
                'ann_file': spec.ann_file,
                'images': count.images,
                'images_shared_with_other_sources': self._shared[number],
                'boxes': count.boxes,
                'boxes_clipped_at_the_border': count.clipped,
                'boxes_without_area_left_out': count.skipped,
                'duplicate_boxes_dropped': dropped[number],
            }
            for number, (spec, count) in enumerate(zip(plan.sources, counts, strict=True))
        ]
        duplicates = [
            {'kept': self._names[kept], 'dropped': self._names[gone], 'boxes': count}
            for (kept, gone), count in sorted(self._dropped.items())
        ]
        return {'boxes': self.boxes, 'sources': sources, 'duplicates': duplicates}

    def described_classes(self) -> list[dict]:
        """The classes with the categories they are made of and the number of boxes of each."""
        numbers = {name: number for number, name in enumerate(self._names)}
        classes = self._taxonomy.describe()
        for class_ in classes:
            for part in class_['from']:
                part['boxes'] = self._by_class[class_['id'], numbers[part['source']], part['category_id']]
            class_['merged'] = len({part['name'] for part in class_['from']}) > 1 or len(class_['from']) > 1
        return classes

    def _name(self, numbers: tuple[int, ...]) -> str:
        return '+'.join(self._names[number] for number in numbers)


def _dump(entry: dict) -> str:
    return json.dumps(entry, ensure_ascii=False)
