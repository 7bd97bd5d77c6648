"""Merging four detection sets: classes, shared pictures, what was searched for, determinism, memory."""

import json
import multiprocessing
import re
import runpy
from pathlib import Path

import pytest

from florence_mm.datasets import DetectionDataset
from florence_mm.preparation.merging import merge_detection
from florence_mm.preparation.merging.sources import make_plan

files = runpy.run_path(str(Path(__file__).parent / 'coco_files.py'))
coco, merged = files['coco'], files['merged']


@pytest.fixture
def sources(tmp_path):
    """COCO and LVIS share one of two pictures; Open Images and Objects365 have pictures of their own."""

    def write(shuffle=None):
        coco(
            tmp_path / 'coco.json',
            {7: ('000000000007.jpg', 100, 80, {}), 9: ('000000000009.jpg', 50, 50, {})},
            [(7, 1, [10, 10, 40, 40], 0), (7, 3, [60, 5, 20, 30], 0), (7, 1, [0, 0, 100, 80], 1)],
            {1: 'person', 3: 'couch'},
            shuffle,
        )
        coco(
            tmp_path / 'lvis.json',
            {
                7: (
                    'train2017/000000000007.jpg',
                    100,
                    80,
                    {'neg_category_ids': [5], 'not_exhaustive_category_ids': [4]},
                ),
                8: ('train2017/000000000008.jpg', 60, 60, {'neg_category_ids': [2], 'not_exhaustive_category_ids': []}),
            },
            [
                (7, 2, [12, 10, 40, 40], 0),  # IoU 38 * 40 / (2 * 1600 - 1520) = 0.905 with COCO's person
                (7, 2, [80, 50, 10, 20], 0),
                (7, 4, [30, 30, 10, 10], 0),
                (8, 4, [0, 0, 30, 30], 0),
            ],
            {2: 'person', 4: 'wine_glass', 5: 'sofa'},
            shuffle,
        )
        (tmp_path / 'boxes.csv').write_text(
            'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf\n'
            'abc,x,/m/man,1,0.1,0.6,0.2,1,0,0,0\n'
            'abc,x,/m/glass,1,0.5,0.75,0,0.5,0,0,1\n'
        )
        (tmp_path / 'classes.csv').write_text('/m/man,Man\n/m/woman,Woman\n/m/glass,Wine glass\n/m/cat,Cat\n')
        (tmp_path / 'labels.csv').write_text(
            'ImageID,Source,LabelName,Confidence\n'
            'abc,verification,/m/man,1\nabc,verification,/m/cat,0\nabc,machine,/m/woman,0\nother,verification,/m/cat,0\n'
        )
        (tmp_path / 'sizes.csv').write_text('ImageID,Width,Height\nabc,200,100\n')
        coco(
            tmp_path / 'o365.json',
            {1: ('images/v2/patch1/o1.jpg', 30, 30, {})},
            [(1, 1, [20, 20, 20, 5], 0)],
            {1: 'Person', 2: 'Wine Glass'},
            shuffle,
        )
        files = {name: str(tmp_path / name) for name in ('coco.json', 'lvis.json', 'boxes.csv', 'o365.json')}
        return make_plan(
            [
                {'name': 'coco', 'format': 'coco', 'ann_file': files['coco.json'], 'prefix': 'coco/train2017/'},
                {'name': 'lvis', 'format': 'lvis', 'ann_file': files['lvis.json'], 'prefix': 'coco/'},
                {
                    'name': 'oi',
                    'format': 'openimages',
                    'ann_file': files['boxes.csv'],
                    'class_descriptions': str(tmp_path / 'classes.csv'),
                    'image_labels': str(tmp_path / 'labels.csv'),
                    'image_sizes': str(tmp_path / 'sizes.csv'),
                    'prefix': 'oi/',
                },
                {'name': 'o365', 'format': 'coco', 'ann_file': files['o365.json']},
            ],
            {'sofa': ['couch'], 'person': ['oi:Man', 'oi:Woman'], 'unheard of': ['nothing']},
        )

    return write


def test_four_sources_make_one_file_worked_by_hand(sources, tmp_path):
    result = merge_detection(sources(), tmp_path / 'out' / 'all.json')
    content = merged(result)
    assert content['categories'] == [
        {'id': 1, 'name': 'cat'},
        {'id': 2, 'name': 'person'},
        {'id': 3, 'name': 'sofa'},
        {'id': 4, 'name': 'wine glass'},
    ]
    assert content['images'] == [
        # COCO searched for person and sofa, LVIS has not boxed all its wine glasses; each class has a box
        {'id': 1, 'file_name': 'coco/train2017/000000000007.jpg', 'width': 100, 'height': 80, 'source': 'coco+lvis',
         'neg_category_ids': [], 'not_exhaustive_category_ids': [4]},
        {'id': 2, 'file_name': 'coco/train2017/000000000009.jpg', 'width': 50, 'height': 50, 'source': 'coco'},
        {'id': 3, 'file_name': 'coco/train2017/000000000008.jpg', 'width': 60, 'height': 60, 'source': 'lvis',
         'neg_category_ids': [2], 'not_exhaustive_category_ids': []},
        # "woman" was not verified, so not every person of the picture has a box
        {'id': 4, 'file_name': 'oi/abc.jpg', 'width': 200, 'height': 100, 'source': 'oi',
         'neg_category_ids': [1], 'not_exhaustive_category_ids': [2]},
        {'id': 5, 'file_name': 'images/v2/patch1/o1.jpg', 'width': 30, 'height': 30, 'source': 'o365'},
    ]  # fmt: skip
    boxes = [(a['image_id'], a['category_id'], a['bbox'], a['iscrowd']) for a in content['annotations']]
    assert boxes == [
        (1, 2, [0, 0, 100, 80], 1),
        (1, 2, [10, 10, 40, 40], 0),
        (1, 2, [80, 50, 10, 20], 0),
        (1, 3, [60, 5, 20, 30], 0),
        (1, 4, [30, 30, 10, 10], 0),
        (3, 4, [0, 0, 30, 30], 0),
        (4, 2, [20, 20, 100, 80], 0),
        (4, 4, [100, 0, 50, 50], 1),
        (5, 2, [20, 20, 10, 5], 0),
    ]
    assert [a['id'] for a in content['annotations']] == list(range(1, 10))
    assert content['sources'] == [
        {'name': 'coco', 'category_ids': [2, 3]},
        {'name': 'coco+lvis', 'category_ids': [2, 3, 4], 'federated': True},
        {'name': 'lvis', 'category_ids': [2, 3, 4], 'federated': True},
        {'name': 'oi', 'category_ids': [1, 2, 4], 'federated': True},
        {'name': 'o365', 'category_ids': [2, 4]},
    ]
    assert (result.images, result.boxes, result.classes) == (5, 9, 4)
    assert sorted(p.name for p in result.out.parent.iterdir()) == [
        'all.json', 'all.merged_images.csv', 'all.report.json'
    ]  # fmt: skip


def test_the_data_set_reads_what_each_image_was_searched_for(sources, tmp_path):
    result = merge_detection(sources(), tmp_path / 'all.json')
    dataset = DetectionDataset(str(result.out), check_files=False)
    assert dataset.metainfo['classes'] == ('cat', 'person', 'sofa', 'wine glass')
    searched = [dataset.get_data_info(i)['annotated_labels'].tolist() for i in range(len(dataset))]
    assert searched == [[1, 2], [1, 2], [1, 3], [0, 3], [1, 3]]


def test_the_report_tells_every_merge(sources, tmp_path):
    result = merge_detection(sources(), tmp_path / 'all.json')
    report = json.loads(result.report.read_text())
    person = report['classes'][1]
    assert person['merged'] and not report['classes'][0]['merged']
    assert [(p['source'], p['name'], p['by'], p['boxes']) for p in person['from']] == [
        ('coco', 'person', 'name', 2),
        ('lvis', 'person', 'name', 1),
        ('oi', 'Man', 'synonym', 1),
        ('oi', 'Woman', 'synonym', 0),
        ('o365', 'Person', 'name', 1),
    ]
    assert report['unused_synonyms'] == ['nothing']
    assert report['duplicates'] == [{'kept': 'coco', 'dropped': 'lvis', 'boxes': 1}]
    lvis = report['sources'][1]
    assert (lvis['images'], lvis['images_shared_with_other_sources'], lvis['boxes']) == (2, 1, 4)
    assert lvis['duplicate_boxes_dropped'] == 1
    assert report['sources'][3]['boxes_clipped_at_the_border'] == 1
    assert result.merged_images.read_text().splitlines()[1:] == [
        '1,coco/train2017/000000000007.jpg,coco+lvis,7 7,5,1'
    ]  # fmt: skip


def test_same_bytes_whatever_the_order_of_entries_and_keys(sources, tmp_path):
    first = merge_detection(sources(), tmp_path / 'a' / 'all.json')
    second = merge_detection(sources(shuffle=1), tmp_path / 'b' / 'all.json')
    for name in ('out', 'report', 'merged_images'):
        assert getattr(first, name).read_bytes() == getattr(second, name).read_bytes()


def test_excluded_pictures_are_left_out(sources, tmp_path):
    plan = sources()
    coco(tmp_path / 'val.json', {1: ('COCO_val2014_000000000007.jpg', 9, 9, {})}, [], {1: 'x'})
    plan = make_plan(
        [vars(spec) for spec in plan.sources], exclude=[{'images': 'coco', 'ann_file': str(tmp_path / 'val.json')}]
    )
    content = merged(merge_detection(plan, tmp_path / 'all.json'))
    assert [image['file_name'][-5] for image in content['images']] == ['9', '8', 'c', '1']
    assert {a['image_id'] for a in content['annotations']} == {2, 3, 4}
    assert json.loads((tmp_path / 'all.report.json').read_text())['excluded_images'] == 1


def peak():
    """The most memory this process has had, in MiB."""
    return int(re.search(r'VmHWM:\s+(\d+) kB', Path('/proc/self/status').read_text())[1]) / 1024


def growth_of_peak(pipe, out, tiny, files):
    """To be run in a process of its own, whose peak starts at what it has."""

    def merge(*names):
        sources = [{'name': str(i), 'format': 'coco', 'ann_file': name, 'images': 'c'} for i, name in enumerate(names)]
        merge_detection(make_plan(sources), out)

    merge(tiny)
    before = peak()
    merge(*files)
    pipe.send(peak() - before)


@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='reads the peak from /proc; runs on Linux')
def test_memory_does_not_grow_with_the_files(tmp_path):
    note = 'n' * 2000

    def write(name, images):
        with (tmp_path / name).open('w') as file:
            file.write('{"images": [')
            file.write(', '.join(f'{{"id": {i}, "file_name": "{i}.jpg", "width": 99, "height": 99}}' for i in images))
            file.write('], "annotations": [')
            for i in range(8 * len(images)):
                box = f'"bbox": [{i % 8}, {i % 5}, {20 + i % 7}, 40], "note": "{note}"'
                file.write(f'{", " * bool(i)}{{"id": {i}, "image_id": {i // 8}, "category_id": 1, {box}}}')
            file.write('], "categories": [{"id": 1, "name": "cat"}]}')
        return str(tmp_path / name)

    files = [write('tiny.json', range(5)), write('a.json', range(1_500)), write('b.json', range(1_500))]
    receiver, sender = multiprocessing.Pipe(duplex=False)
    # forked, as a new process would import everything first
    process = multiprocessing.get_context('fork').Process(
        target=growth_of_peak, args=(sender, tmp_path / 'all.json', files[0], files[1:])
    )
    process.start()
    assert receiver.poll(60)
    growth = receiver.recv()
    process.join()
    # measured: 4 MiB; each file is larger than the limit
    assert min(Path(file).stat().st_size for file in files[1:]) > 20 * 2**20
    assert growth < 16
