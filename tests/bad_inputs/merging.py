"""Bad inputs: merging detection sets."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from florence_mm.preparation.merging import merge_detection, read_plan

from .case import BadInput, command
from .coco import changed, content
from .detection_preparation import write

AREA = 'merging detection sets'
PLAN = {'sources': [{'name': 'a', 'format': 'coco', 'ann_file': 'a.json'}]}
OPEN_IMAGES = {
    'boxes.csv': b'ImageID,LabelName,XMin,XMax,YMin,YMax\na,/m/1,0,0.5,0.25,0.75\n',
    'classes.csv': b'/m/1,Tortoise\n/m/2,Cup\n',
    'sizes.csv': b'ImageID,Width,Height\na,64,48\n',
    'labels.csv': b'ImageID,LabelName,Confidence\na,/m/2,0\n',
}
OPEN_IMAGES_PLAN = {
    'sources': [
        {
            'name': 'oi',
            'format': 'openimages',
            'ann_file': 'boxes.csv',
            'class_descriptions': 'classes.csv',
            'image_sizes': 'sizes.csv',
            'image_labels': 'labels.csv',
        }
    ]
}


def merge(data: Any = None, plan: Any = PLAN, out: str = 'out.json', **settings: Any) -> Callable[[Path], Any]:
    """Merge: the classes, the sizes of images and the boxes of the merged file."""

    def run(folder: Path) -> Any:
        write(data)
        Path('plan.json').write_bytes(plan if isinstance(plan, bytes) else json.dumps(plan).encode())
        merge_detection(read_plan('plan.json'), out, **settings)
        found = json.loads(Path(out).read_bytes())
        sizes = [(image['width'], image['height']) for image in found['images']]
        return [item['name'] for item in found['categories']], sizes, [item['bbox'] for item in found['annotations']]

    return run


def open_images(**files: bytes) -> Callable[[Path], Any]:
    """Merge a source in Open Images' format with some files replaced."""

    def run(folder: Path) -> Any:
        for name, data in {**OPEN_IMAGES, **{f'{key}.csv': value for key, value in files.items()}}.items():
            Path(name).write_bytes(data)
        return merge(plan=OPEN_IMAGES_PLAN)(folder)

    return run


def crowds(**files: bytes) -> Callable[[Path], list[bool]]:
    """Whether each merged box of Open Images is a crowd."""

    def run(folder: Path) -> list[bool]:
        open_images(**files)(folder)
        return [item['iscrowd'] == 1 for item in json.loads(Path('out.json').read_bytes())['annotations']]

    return run


def shared(other: dict) -> Callable[[Path], Any]:
    """Merge two sources of one collection of pictures."""

    def run(folder: Path) -> Any:
        Path('b.json').write_text(json.dumps(other))
        first = PLAN['sources'][0] | {'images': 'x'}
        return merge(plan={'sources': [first, {**first, 'name': 'b', 'ann_file': 'b.json'}]})(folder)

    return run


def cases() -> list[BadInput]:
    merged = (['cat', 'dog'], [(40, 30), (40, 30)], [[5, 2, 8, 9], [10, 2, 8, 9]])
    text = json.dumps(content())
    fraction = {**content()['annotations'][0], 'bbox': [0.1, 0, 0.5, 1]}
    rows = [
        BadInput('merging a file as it should be', merge(), gives=merged),
        BadInput('merging a file with a byte-order mark', merge(b'\xef\xbb\xbf' + text.encode()), gives=merged),
        BadInput('merging a file cut off', merge(text[:-40].encode()), ('a.json', 'not a whole JSON file')),
        BadInput('merging a file of Latin-1', merge(text.replace('cat', 'k\xe4').encode('latin-1')), 'a.json'),
        BadInput('merging an empty file', merge(b''), 'a.json'),
        BadInput('merging lists nested 100000 deep', merge(b'[' * 100_000 + b']' * 100_000), 'a.json'),
        BadInput('merging an image id of 65 bits', merge(changed('images', id=2**64)), 'integer overflow'),
        BadInput('merging all boxes in fractions', merge(content(annotations=[fraction])), 'between 0 and 1'),
    ]
    for part, key in (('images', 'file_name'), ('categories', 'name')):
        for value in ('\ud800', '\udc00', 'a\udfff', '', '  ', None, 7, ['x'], 'a\0'):
            words = f'merging {key} {json.dumps(value)}'
            rows.append(BadInput(words, merge(changed(part, **{key: value})), 'a.json'))
        pair = merge(json.dumps(changed(part, **{key: 'a\U0001f431\\'})).encode())
        words = f'merging {key} with an emoji by a pair of escapes, and a backslash'
        rows.append(BadInput(words, lambda folder, pair=pair: len(pair(folder)), gives=3))
    for key, values in (
        ('width', ('40', 0, -1, 40.5, None, 10**12)),
        ('id', ([1], None, 1.5, True)),
        ('neg_category_ids', ('1', [9], 3)),
    ):
        for value in values:
            data = changed('images', **{key: value})
            rows.append(BadInput(f'merging {key} {json.dumps(value)}', merge(data), ('a.json', 'images[0]')))
    for key, values in (
        ('iscrowd', ('yes', '0', 2, [1])),
        ('ignore', ('yes', 0.5)),
        ('area', ('72', [1], 1e11)),
        ('score', ('0.5', [1])),
        ('bbox', (None, [1, 2, 3], 'x', [1, 2, 3, '4'])),
        ('category_id', ('1', 9, None)),
        ('image_id', (9, None, [1])),
    ):
        for value in values:
            data = changed('annotations', **{key: value})
            rows.append(BadInput(f'merging {key} {json.dumps(value)}', merge(data), ('a.json', 'annotations[0]')))
    for value in ('0.1', -1, float('nan'), float('inf'), 1.5, None):
        rows.append(BadInput(f'merging with max_bad_boxes={value!r}', merge(max_bad_boxes=value), 'max_bad_boxes'))
    for value in (0, -1, 1.5, float('nan')):
        rows.append(BadInput(f'merging with iou_threshold={value!r}', merge(iou_threshold=value), 'IoU threshold'))
    for words, plan, says in (
        ('exclude a number', PLAN | {'exclude': 3}, 'exclude'),
        ('exclude a text', PLAN | {'exclude': 'val.json'}, 'exclude'),
        ('exclude a list of texts', PLAN | {'exclude': ['val.json']}, 'exclude[0]'),
        ('exclude with a list for a file', PLAN | {'exclude': [{'images': 'a', 'ann_file': ['x']}]}, 'exclude[0]'),
        ('exclude with a list for images', PLAN | {'exclude': [{'images': ['a'], 'ann_file': 'x'}]}, 'exclude[0]'),
        ('synonyms a list', PLAN | {'synonyms': ['cat']}, 'synonyms'),
        ('no sources', {'sources': []}, 'sources'),
        ('sources a number', {'sources': 3}, 'sources'),
        ('a source a text', {'sources': ['a.json']}, 'sources[0]'),
        ('a misspelt key', PLAN | {'exlude': []}, 'exlude'),
        ('of a list', [1], 'plan.json'),
        ('of lists nested 5000 deep', b'[' * 5000 + b']' * 5000, 'plan.json'),
        ('of Latin-1', 'sources: [\xe4]'.encode('latin-1'), ('plan.json', 'UTF-8')),
        ('with a key twice', b'sources: []\nsources: []\n', "'sources' occurs twice"),
        ('empty', b'', 'plan.json'),
        ('that excludes all', PLAN | {'exclude': [{'images': 'a', 'ann_file': 'a.json'}]}, 'leaves none of the 2'),
        ('with half a character', {'sources': [PLAN['sources'][0] | {'name': '\ud800'}]}, 'sources[0]'),
        ('with a prefix that no file can have', {'sources': [PLAN['sources'][0] | {'prefix': '\0'}]}, 'prefix'),
    ):
        rows.append(BadInput(f'a plan {words}', merge(plan=plan), says))
    for out in ('a.json', './a.json', 'link.json'):

        def onto_source(folder: Path, out: str = out) -> Any:
            Path('link.json').symlink_to('a.json')
            return merge(out=out)(folder)

        rows.append(BadInput(f'the merged file is {out}, a source', onto_source, 'is the input'))

    def onto_plan(folder: Path) -> Any:
        Path('plan.json').write_text(json.dumps(PLAN))
        return command('tools/dataset_converters/merge_detection.py', 'plan.json', '--out', 'plan.json')

    rows.append(BadInput('the merged file has another ending', merge(out='out.jsonl'), '.json'))
    rows.append(BadInput('the merged file is the plan', onto_plan, ('--out', 'plan.json')))
    for value in (b'inf', b'1e400', b'nan', b'0', b'-64', b'1.5', b'', b'x', b'1e30'):
        size = b'ImageID,Width,Height\na,' + value + b',48\n'
        rows.append(BadInput(f'Open Images: width {value.decode()!r}', open_images(sizes=size), 'sizes.csv, line 2'))
    rows += [
        BadInput(f'Open Images: {words}', open_images(**files), says)
        for words, files, says in (
            ('two sizes of an image', {'sizes': OPEN_IMAGES['sizes.csv'] + b'a,48,64\n'}, ('line 3', 'another size')),
            ('classes of Latin-1', {'classes': b'/m/1,k\xe4fer\n'}, ('classes.csv', 'UTF-8')),
            ('classes with a blank name', {'classes': b'/m/1,  \n'}, 'classes.csv, line 1'),
            ('classes with an open quotation mark', {'classes': b'/m/1,"Tortoise\n/m/2,Cup\n'}, 'classes.csv'),
            ('classes with two open quotation marks', {'classes': b'/m/1,"Cup\n/m/2,Cat\n/m/3,Dog"\n'}, 'line 1'),
            ('boxes with semicolons', {'boxes': OPEN_IMAGES['boxes.csv'].replace(b',', b';')}, 'line 1'),
            ('a class code twice', {'classes': b'/m/1,Tortoise\n/m/1,Cup\n'}, 'classes.csv, line 2'),
            ('no classes', {'classes': b''}, 'classes.csv'),
            ('boxes of no number', {'boxes': OPEN_IMAGES['boxes.csv'].replace(b'0.25', b'x')}, ('line 2', 'YMin')),
            ('boxes of NaN', {'boxes': OPEN_IMAGES['boxes.csv'].replace(b'0.25', b'nan')}, ('line 2', 'no area')),
            ('an unknown class code', {'boxes': OPEN_IMAGES['boxes.csv'].replace(b'/m/1', b'/m/9')}, '/m/9'),
            ('a half confidence', {'labels': OPEN_IMAGES['labels.csv'].replace(b',0\n', b',0.5\n')}, 'confidence'),
        )
    ]
    group = OPEN_IMAGES['boxes.csv'].replace(b'\n', b',IsGroupOf\n', 1)[:-1]
    for value in (b'1', b'1.0', b'0', b'-1'):
        crowd = crowds(boxes=group + b',' + value + b'\n')
        rows.append(BadInput(f'Open Images: IsGroupOf {value.decode()}', crowd, gives=[value[:1] == b'1']))
    for value in (b'true', b'2', b'nan'):
        rows.append(
            BadInput(
                f'Open Images: IsGroupOf {value.decode()}',
                open_images(boxes=group + b',' + value + b'\n'),
                ('line 2', 'IsGroupOf'),
            )
        )
    same = open_images(sizes=OPEN_IMAGES['sizes.csv'] + b'a,64,48\n')
    found = ['cup', 'tortoise'], [(64, 48)], [[0, 12, 32, 24]]
    rows.append(BadInput('Open Images: one size twice', same, gives=found))
    quoted = open_images(classes=b'LabelName,DisplayName\r\n\r\n/m/1,"Cat, ""big"" one"\r\n/m/2,Cup\r\n')
    found = ['cat, "big" one', 'cup'], *found[1:]
    rows.append(BadInput('Open Images: classes with quotation marks and a blank line', quoted, gives=found))
    twice = text.replace('"area"', '"bbox": [0, 0, 1, 1], "area"').encode()
    rows.append(BadInput('merging an annotation with two boxes', merge(twice), ("'bbox'", 'twice')))
    turned = {**content(), 'images': [{**image, 'width': 30, 'height': 40} for image in content()['images']]}
    rows.append(BadInput('merging a picture of two sizes', shared(turned), ('1.png', '40x30 and 30x40')))
    for value in (True, [True]):
        negative = {**content(), 'images': [{**image, 'neg_category_ids': value} for image in content()['images']]}
        rows.append(BadInput(f'merging neg_category_ids {value}', merge(negative), 'neg_category_ids'))
    return rows
