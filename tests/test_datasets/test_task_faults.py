"""Any value of a task's or annotation's file replaced by another: a sentence that names the file, or a sample."""

import copy
import json
import pickle

import cv2
import numpy as np
import pytest

from florence_mm.datasets import CocoTasks, RefCocoTasks, SceneTextTasks, TaskManifest, VisualGenomeTasks
from florence_mm.errors import DataError

PIPELINE = [{'type': 'LoadImage'}, {'type': 'PackTask'}]
VALUES = (None, True, -1.5, 1e308, float('nan'), '', 'x', '\ud800', [], {}, [1, 2, 3, 4])
GONE = object()

COCO = {
    'images': [{'id': 1, 'file_name': '0.png', 'width': 40, 'height': 20}],
    'annotations': [
        {
            'id': 1,
            'image_id': 1,
            'category_id': 1,
            'bbox': [0, 0, 20, 10],
            'iscrowd': 0,
            'segmentation': [[0, 0, 20, 0, 20, 10]],
        },
        {
            'id': 2,
            'image_id': 1,
            'category_id': 1,
            'bbox': [0, 0, 5, 5],
            'segmentation': {'size': [20, 40], 'counts': [5, 795]},
        },
    ],
    'categories': [{'id': 1, 'name': 'dog'}],
}  # fmt: skip
CAPTIONS = {'images': [{'id': 1, 'file_name': '0.png'}], 'annotations': [{'image_id': 1, 'caption': 'a dog'}]}
REFS = [{'ref_id': 1, 'ann_id': 1, 'image_id': 1, 'split': 'val', 'sentences': [{'sent': 'the dog'}]}]
REGIONS = [{'id': 1, 'regions': [{'region_id': 3, 'x': 1, 'y': 1, 'width': 9, 'height': 9, 'phrase': 'a dog'}]}]
IMAGES = [{'image_id': 1, 'url': 'https://host/0.png', 'width': 40, 'height': 20}]
WORDS = {
    'imgs': {'1': {'file_name': '0.png', 'width': 40, 'height': 20, 'set': 'val'}},
    'anns': {
        '2': {'image_id': 1, 'bbox': [0, 0, 20, 10], 'utf8_string': 'a', 'points': [0, 0, 9, 0, 9, 9, 4, 9, 0, 9]},
        '3': {'image_id': 1, 'bbox': [0, 0, 20, 10], 'utf8_string': 'b', 'legibility': 'legible'},
    },
}
LINES = [
    {'image': '0.png', 'task': 'caption', 'answers': ['a dog', 'dog'], 'extra': 1},
    {'image': '0.png', 'task': 'region_category', 'region': [0, 0, 1, 1], 'answer': 'a'},
    {
        'image': '0.png',
        'task': 'phrase_grounding',
        'text': 'a dog',
        'regions': [{'text': 'dog', 'boxes': [[0, 0, 1, 1]], 'score': 0.5}],
    },
    {
        'image': '0.png',
        'task': 'ocr_with_region',
        'regions': [{'text': 'a', 'quad': [[0, 0], [1, 0], [1, 1], [0, 1]]}],
    },
    {
        'image': '0.png',
        'task': 'referring_segmentation',
        'text': 'it',
        'regions': [{'polygons': [[[0, 0], [1, 0], [1, 1]]]}],
    },
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp('faults')
    cv2.imwrite(str(out / '0.png'), np.zeros((20, 40, 3), np.uint8))
    (out / 'host').mkdir()
    cv2.imwrite(str(out / 'host/0.png'), np.zeros((20, 40, 3), np.uint8))
    (out / 'good.json').write_text(json.dumps(COCO))
    (out / 'images.json').write_text(json.dumps(IMAGES))
    (out / 'regions.json').write_text(json.dumps(REGIONS))
    return out


def places(content, path=()):
    """The path of every value of a content, from the top; of a list of numbers the first."""
    if path:
        yield path
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    if isinstance(content, list) and len(content) > 1 and all(isinstance(value, int) for value in content):
        inner = enumerate(content[:1])
    for key, value in inner:
        yield from places(value, (*path, key))


def changed(content, path, value):
    found = copy.deepcopy(content)
    part = found
    for key in path[:-1]:
        part = part[key]
    if value is GONE:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return found


def as_json(name):
    return lambda folder, content: (folder / name).write_text(json.dumps(content))


def as_pickle(folder, content):
    (folder / 'refs.p').write_bytes(pickle.dumps(content, 2))


def as_lines(folder, content):
    (folder / 'tasks.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in content))


def built(cls, *args, **given):
    return lambda folder, **more: cls(*args, **given, data_root=str(folder), pipeline=PIPELINE, test_mode=True, **more)


SOURCES = {
    'lines': (LINES, as_lines, built(TaskManifest, 'tasks.jsonl')),
    'objects': (COCO, as_json('changed.json'), built(CocoTasks, 'region_segmentation', 'changed.json')),
    'captions': (CAPTIONS, as_json('changed.json'), built(CocoTasks, 'caption', 'changed.json')),
    'expressions': (REFS, as_pickle, built(RefCocoTasks, 'phrase_grounding', 'refs.p', 'good.json', 'val')),
    'regions': (REGIONS, as_json('r.json'), built(VisualGenomeTasks, 'region_description', 'r.json', 'images.json')),
    'pictures': (IMAGES, as_json('i.json'), built(VisualGenomeTasks, 'phrase_grounding', 'regions.json', 'i.json')),
    'words': (WORDS, as_json('changed.json'), built(SceneTextTasks, 'ocr_with_region', 'changed.json', 'val')),
}


@pytest.mark.parametrize('name', SOURCES)
def test_every_value_is_read_or_refused_with_a_sentence(name, folder):
    content, write, build = SOURCES[name]
    write(folder, content)
    assert len(build(folder)) >= 1
    refused, faults = 0, []
    for path in places(content):
        for value in (*VALUES, GONE):
            write(folder, changed(content, path, value))
            try:
                dataset = build(folder)
                for index in range(len(dataset)):
                    assert dataset[index]['data_samples'].prompt
            except DataError as error:
                refused += 1
                if '\n' in str(error) or str(folder) not in str(error) or 'Error' in str(error):
                    faults.append(f'{path} = {value!r}: {error}')
            except Exception as error:
                faults.append(f'{path} = {value!r}: {type(error).__name__}: {error}')
    assert not faults, '\n'.join(faults)
    assert refused > 20


def test_the_same_faults_can_be_skipped(folder):
    content, write, build = SOURCES['lines']
    wrong = changed(content, (2, 'regions', 0, 'boxes', 0, 0), 1.5)
    write(folder, wrong)
    assert len(build(folder, skip_bad={'max': 1})) == len(content) - 1
