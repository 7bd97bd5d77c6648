"""Bad inputs: annotation files in COCO format, as training data and as ground truth."""

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from florence_mm.datasets import DetectionDataset
from florence_mm.evaluation import DetectionMetric

from .case import BadInput

AREA = 'annotation files in COCO format'
SIZE = {'width': 40, 'height': 30}


def content(**more: Any) -> dict:
    """Two images, two classes, a box of each class in the first."""
    return {
        'images': [{'id': i, 'file_name': f'{i}.png', **SIZE} for i in (1, 2)],
        'annotations': [
            {'id': i, 'image_id': 1, 'category_id': i, 'bbox': [5 * i, 2, 8, 9], 'area': 72, 'iscrowd': 0}
            for i in (1, 2)
        ],
        'categories': [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}],
        **more,
    }


def changed(part: str, index: int = 0, drop: str = '', **values: Any) -> dict:
    """The content with other values in one entry, or without a key."""
    found = content()
    found[part][index].update(values)
    found[part][index].pop(drop, None)
    return found


def load(data: Any, **settings: Any) -> Callable[[Path], Any]:
    """Load the file as training data: class names, and box, label and flag of each instance of the first image."""

    def run(folder: Path) -> Any:
        (folder / 'a.json').write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
        for name in ('1', '2'):
            cv2.imwrite(str(folder / f'{name}.png'), np.zeros((30, 40, 3), np.uint8))
        dataset = DetectionDataset('a.json', str(folder), **settings)
        boxes = dataset.get_data_info(0)['instances']
        return dataset.metainfo['classes'], [(box['bbox'], box['bbox_label'], box['ignore_flag']) for box in boxes]

    return run


def precision(data: Any, labels: tuple[int, ...] = (0, 1), **settings: Any) -> Callable[[Path], float]:
    """Average precision of detections of the two boxes with these labels."""

    def run(folder: Path) -> float:
        (folder / 'a.json').write_text(json.dumps(data))
        metric = DetectionMetric(str(folder / 'a.json'), table_rows=0, **settings)
        metric.dataset_meta = {'classes': ('cat', 'dog')}
        boxes = torch.tensor([[5.0, 2, 13, 11], [10, 2, 18, 11]])
        found = {'bboxes': boxes, 'scores': torch.tensor([0.9, 0.8]), 'labels': torch.tensor(labels)}
        nothing = {key: value[:0] for key, value in found.items()}
        ids = [image['id'] for image in data['images']]
        metric.process(None, [{'img_id': id_, 'pred_instances': found if id_ == ids[0] else nothing} for id_ in ids])
        return round(metric.evaluate(len(ids))['bbox/AP'], 4)

    return run


def numbered(first: int) -> dict:
    """The content with all ids from ``first`` on, with LVIS's keys."""
    found = content()
    for items in (found['images'], found['annotations'], found['categories']):
        for number, item in enumerate(items):
            item['id'] = first + number
    for number, item in enumerate(found['annotations']):
        item.update(image_id=first, category_id=first + number)
    for image in found['images']:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    for category in found['categories']:
        category['frequency'] = 'f'
    return found


def listed_frequency() -> dict:
    found = numbered(1)
    found['categories'][0]['frequency'] = ['f']
    return found


GOOD = (('cat', 'dog'), [([5, 2, 13, 11], 0, 0), ([10, 2, 18, 11], 1, 0)])
TEXT = json.dumps(content())
NO_NUMBERS = ('x', '5', None, True, [5], {'x': 5}, float('nan'), float('inf'), -float('inf'), 10**400)
NO_IDS = ('1', 1.0, 1.5, None, True, [1], {}, float('nan'))
IDS = (
    ('images', 'id'),
    ('annotations', 'id'),
    ('annotations', 'image_id'),
    ('annotations', 'category_id'),
    ('categories', 'id'),
)
NO_NAMES = (7, None, ['cat'], {'en': 'cat'}, True, '', '   ', '\u200b', '\u3164 ', 'a\0b', '\ud800')
FILES = {
    'empty': (b'', 'is empty'),
    'of blanks': (b' \n\t ', 'is empty'),
    'cut off': (TEXT[:200].encode(), 'cannot be read as JSON'),
    'with more behind its end': (TEXT.encode() + b'{}', 'cannot be read as JSON'),
    'of Latin-1': (TEXT.replace('cat', 'k\xe4tzchen').encode('latin-1'), ('not UTF-8', '0xe4')),
    'of UTF-8 cut in a character': ('{"images": "\u00e4'.encode()[:-1], 'not UTF-8'),
    'of gzip': (b'\x1f\x8b\x08\x00' + bytes(20), 'not UTF-8'),
    'of lists nested 100000 deep': (b'[' * 100_000 + b']' * 100_000, 'nested too deeply'),
    'of objects nested 100000 deep': (b'{"a":' * 100_000 + b'1' + b'}' * 100_000, 'nested too deeply'),
    'with images nested 100000 deep': (b'{"images": ' + b'[' * 100_000 + b']' * 100_000 + b'}', 'nested too deeply'),
    'of a list': (b'[1, 2]', ('a list', 'expected an object')),
    'of a text': (b'"images"', ('a text', 'expected an object')),
    'of null': (b'null', ('null', 'expected an object')),
    'of JSON lines': (b'{"images": []}\n{"images": []}\n', 'cannot be read as JSON'),
    'with annotations twice': (
        TEXT.replace('"categories"', '"annotations": [], "categories"').encode(),
        'occurs twice',
    ),
    'with a box twice in an annotation': (TEXT.replace('"area"', '"bbox": [0, 0, 1, 1], "area"').encode(), "'bbox'"),
}
READABLE = {
    'a byte-order mark': codecs.BOM_UTF8 + TEXT.encode(),
    'UTF-16': TEXT.encode('utf-16'),
    'UTF-32': TEXT.encode('utf-32'),
    'lines of Windows': json.dumps(content(), indent=1).replace('\n', '\r\n').encode(),
}


def _files() -> list[BadInput]:
    rows = [BadInput(f'a file {words}', load(data), says) for words, (data, says) in FILES.items()]
    rows += [BadInput(f'a file with {words}', load(data), gives=GOOD) for words, data in READABLE.items()]
    for part in ('images', 'annotations', 'categories'):
        rows += [
            BadInput(f'{part} is {json.dumps(value)}', load(content(**{part: value})), (part, 'a.json'))
            for value in (None, {}, 'x', 3)
        ]
        rows += [
            BadInput(f'{part} with the entry {json.dumps(value)}', load(content(**{part: [value]})), 'a.json')
            for value in (None, 3, 'x', [], {})
        ]
        keys = content()[part][0].keys() - {'area', 'iscrowd'}
        without = [
            BadInput(f'{part} without {key}', load(changed(part, drop=key)), (key, 'a.json')) for key in sorted(keys)
        ]
        rows += without
    return rows


def _values() -> list[BadInput]:
    rows = []
    for part, key in IDS:
        rows += [
            BadInput(f'{key} of {part} is {json.dumps(value)}', load(changed(part, **{key: value})), (key, 'a.json'))
            for value in NO_IDS
        ]
        twice = changed(part, 1, **{key: 9 if key.endswith('_id') else 1})
        rows.append(
            BadInput(f'{key} of {part} is that of another or unknown', load(twice), ('a.json', key.split('_')[-1]))
        )
    for part, key in (('images', 'file_name'), ('categories', 'name')):
        rows += [
            BadInput(f'{key} is {json.dumps(value)}', load(changed(part, **{key: value})), (key, 'a.json'))
            for value in NO_NAMES
        ]
    for key in ('width', 'height'):
        for value in (*NO_NUMBERS, 0, -40):
            words = f'{key} is {value if isinstance(value, float) else json.dumps(value)[:20]}'
            rows.append(BadInput(words, load(changed('images', **{key: value})), ('a.json', key)))
    for value in NO_NUMBERS:
        shown = value if isinstance(value, float) else json.dumps(value)[:20]
        rows += [
            BadInput(
                f'a box with x {shown}', load(changed('annotations', bbox=[value, 2, 8, 9])), ('annotation 1', 'bbox')
            ),
            BadInput(
                f'a box with height {shown}',
                load(changed('annotations', bbox=[5, 2, 8, value])),
                ('annotation 1', 'bbox'),
            ),
        ]
        if value is not None:
            rows.append(
                BadInput(f'area is {shown}', load(changed('annotations', area=value)), ('annotation 1', 'area'))
            )
    for value in (None, [], [1, 2, 3], [1, 2, 3, 4, 5], '1,2,3,4', {'x': 1}, [[1, 2], [3, 4]]):
        rows.append(
            BadInput(f'bbox is {json.dumps(value)}', load(changed('annotations', bbox=value)), ('annotation 1', 'bbox'))
        )
    for key in ('iscrowd', 'ignore'):
        rows += [
            BadInput(
                f'{key} is {json.dumps(value)}', load(changed('annotations', **{key: value})), ('annotation 1', key)
            )
            for value in ('yes', '0', '1', 2, -1, 0.5, [1], {})
        ]
    fractions = content()
    for item in fractions['annotations']:
        item['bbox'] = [0.1, 0.2, 0.5, 1]
    rows += [
        BadInput('boxes in fractions of the image', load(fractions), ('a.json', 'between 0 and 1')),
        BadInput('area below 0', load(changed('annotations', area=-1)), ('annotation 1', 'area -1')),
        BadInput(
            'area beyond what the protocol counts', load(changed('annotations', area=1e11)), ('annotation 1', 'area')
        ),
        BadInput('two categories of one name', load(changed('categories', 1, name='cat')), ('cat', '1 and 2')),
        BadInput('all boxes outside of the images', load(changed('annotations', bbox=[50, 2, 8, 9])), 'max_bad_boxes'),
        BadInput('a category id of 65 bits', load(changed('annotations', category_id=2**64)), 'annotation 1'),
        BadInput('an annotation id of 65 bits', load(changed('annotations', id=2**64)), '64 bits'),
    ]
    return rows


def _federated() -> list[BadInput]:
    rows = []
    for key in ('neg_category_ids', 'not_exhaustive_category_ids'):
        rows += [
            BadInput(f'{key} is {json.dumps(value)}', load(changed('images', **{key: value})), ('image 1', key))
            for value in ('1', 1, None, {'1': 2}, ['1'], [[1]], [None], [9])
        ]
    for value in ({'name': 'a'}, 'x', 3, [3], ['a'], [{}], [{'name': 'a'}], [{'name': 3, 'category_ids': [1]}]):
        rows.append(BadInput(f'sources is {json.dumps(value)}', load(content(sources=value)), ('a.json', 'source')))
    source = {'name': 'a', 'category_ids': [1]}
    rows += [
        BadInput('a source with an unknown category', load(content(sources=[{**source, 'category_ids': [8]}])), '[8]'),
        BadInput(
            'a source with text for its categories', load(content(sources=[{**source, 'category_ids': '1'}])), "'1'"
        ),
        BadInput('a source twice', load(content(sources=[source, source])), "'a' occurs twice"),
        BadInput('images that name no source', load(content(sources=[source])), ('image 1', 'source None')),
    ]
    return rows


def _accepted() -> list[BadInput]:
    ignored = (GOOD[0], [([5, 2, 13, 11], 0, 1), GOOD[1][1]])
    rows = [
        BadInput(f'{key} is {json.dumps(value)}', load(changed('annotations', **{key: value})), gives=expected)
        for key in ('iscrowd', 'ignore')
        for value, expected in ((1, ignored), (True, ignored), (1.0, ignored), (0, GOOD), (False, GOOD), (None, GOOD))
    ]
    rows += [
        BadInput('area is null', load(changed('annotations', area=None)), gives=GOOD),
        BadInput('no area', load(changed('annotations', drop='area')), gives=GOOD),
        BadInput('width and height with a point', load(changed('images', width=40.0, height=30.0)), gives=GOOD),
        BadInput(
            'an emoji in a class name',
            load(changed('categories', name='\U0001f431')),
            gives=(('\U0001f431', 'dog'), GOOD[1]),
        ),
        BadInput(
            'a box partly outside',
            load(changed('annotations', bbox=[-3, 2, 8, 9])),
            gives=(GOOD[0], [([0, 2, 5, 11], 0, 0), GOOD[1][1]]),
        ),
    ]
    for first in (1, 0, -1, -5, 2**31, 2**62):
        for name, settings in (('COCO', {}), ('class-agnostic', {'class_agnostic': True}), ('LVIS', {'style': 'lvis'})):
            words = f'ids from {first}, perfect detections, {name}'
            rows.append(BadInput(words, precision(numbered(first), **settings), gives=1.0))
        rows.append(BadInput(f'ids from {first}, labels exchanged', precision(numbered(first), (1, 0)), gives=0.0))
    for value in ('72', [72], float('nan')):
        rows.append(
            BadInput(f'ground truth with area {value!r}', precision(changed('annotations', area=value)), 'area')
        )
    rows += [
        BadInput(
            'LVIS ground truth with a list as frequency',
            precision(listed_frequency(), style='lvis'),
            ("'cat'", 'frequency'),
        ),
        BadInput('ground truth with area null', precision(changed('annotations', area=None)), gives=1.0),
        BadInput('ground truth with iscrowd as text', precision(changed('annotations', iscrowd='no')), 'iscrowd'),
        BadInput(
            'ground truth with a box to ignore that is found', precision(changed('annotations', ignore=1)), gives=1.0
        ),
    ]
    return rows


def _arguments() -> list[BadInput]:
    rows = [
        BadInput(f'max_bad_boxes={value!r}', load(content(), max_bad_boxes=value), 'max_bad_boxes')
        for value in ('0.1', -1, 1.5, float('nan'), float('inf'), None, [1], True)
    ]
    rows += [
        BadInput(f'skip_bad={value!r}', load(content(), skip_bad=value), 'skip_bad')
        for value in (3, 'all', True, {'maximum': 1}, {}, {'max': -1}, {'max': 'x'}, {'max': None}, {'max': 1.5})
    ]
    rows += [
        BadInput(f'{key}={value!r}', load(content(), **{key: value}), says)
        for key, value, says in (
            ('classes', ['cow'], "'cow'"),
            ('classes', 'cat', 'a list of names'),
            ('classes', ['cat', 'cat'], 'different names'),
            ('classes', [1], 'a list of names'),
            ('classes', [['cat']], 'a list of names'),
            ('classes', 3, 'classes'),
            ('held_out', ['cow'], "'cow'"),
            ('held_out', 'cat', 'a list of names'),
            ('held_out', 3, 'held_out'),
            ('held_out', ['cat', 'dog'], 'held_out'),
            ('data_prefix', {'image': ''}, 'img'),
            ('data_prefix', 'nowhere', ('1.png', 'missing')),
        )
    ]
    return rows


def cases() -> list[BadInput]:
    return [*_files(), *_values(), *_federated(), *_accepted(), *_arguments()]
