import json

import cv2
import numpy as np
import pytest

from florence_mm.datasets import DetectionDataset
from florence_mm.errors import DataError
from florence_mm.registry import DATASETS

CATEGORIES = [{'id': 9, 'name': 'dog'}, {'id': 2, 'name': 'cat'}, {'id': 5, 'name': 'emu'}]


def item(i, image_id, category_id, box, **more):
    return {'id': i, 'image_id': image_id, 'category_id': category_id, 'bbox': box, 'area': 1, 'iscrowd': 0, **more}


def content(annotations=(), images=3, **more):
    names = [{'id': i, 'file_name': f'{i}.png', 'width': 40, 'height': 30} for i in range(1, images + 1)]
    return {'images': names, 'annotations': list(annotations), 'categories': CATEGORIES, **more}


@pytest.fixture
def folder(tmp_path):
    for i in range(1, 5):
        cv2.imwrite(str(tmp_path / f'{i}.png'), np.full((30, 40, 3), 50 * i, np.uint8))
    return tmp_path


@pytest.fixture
def build(folder):
    def build(data, **settings):
        text = data if isinstance(data, str) else json.dumps(data)
        (folder / 'boxes.json').write_text(text)
        return DATASETS.build(
            {'type': 'florence_mm.DetectionDataset', 'ann_file': 'boxes.json', 'data_root': str(folder), **settings}
        )

    return build


@pytest.fixture
def log(monkeypatch):
    said = []
    monkeypatch.setattr('florence_mm.datasets.detection.print_log', lambda text, **kwargs: said.append(text))
    monkeypatch.setattr('florence_mm.datasets.skipping.print_log', lambda text, **kwargs: said.append(text))
    return said


def boxes(dataset, i):
    return [(box['bbox'], box['bbox_label'], box['ignore_flag']) for box in dataset.get_data_info(i)['instances']]


def test_boxes_and_labels(build, folder):
    data = content(
        [item(1, 1, 5, [1, 2, 3, 4]), item(2, 3, 2, [0.5, 0, 39.5, 30]), item(3, 1, 9, [0, 0, 9, 9], iscrowd=1)]
    )
    dataset = build(data)
    # labels go by category id, not by the order in the file
    assert dataset.metainfo['classes'] == ('cat', 'emu', 'dog')
    assert set(dataset.metainfo) == {'classes'}  # no path, so that training sets can be concatenated
    assert build(data, test_mode=True).metainfo['ann_file'] == str(folder / 'boxes.json')
    assert boxes(dataset, 0) == [([1, 2, 4, 6], 1, 0), ([0, 0, 9, 9], 2, 1)]
    assert boxes(dataset, 1) == []
    assert boxes(dataset, 2) == [([0.5, 0, 40, 30], 0, 0)]
    assert dataset.get_cat_ids(0) == [1]  # a crowd is no object
    info = dataset.get_data_info(2)
    assert (info['img_path'], info['img_id'], info['height'], info['width']) == (str(folder / '3.png'), 3, 30, 40)
    # the order of `classes` is that of the labels
    chosen = build(data, metainfo={'classes': ['dog', 'cat']})
    assert boxes(chosen, 0) == [([0, 0, 9, 9], 0, 1)] and boxes(chosen, 2)[0][1] == 1
    agnostic = build(data, class_agnostic=True)
    assert agnostic.metainfo['classes'] == ('object',)
    assert [label for _, label, _ in boxes(agnostic, 0)] == [0, 0]


def test_through_mmdets_pipeline(build):
    dataset = build(
        content([item(1, 1, 5, [1, 2, 3, 4]), item(2, 1, 9, [0, 0, 9, 9], iscrowd=1)]),
        pipeline=[
            {'type': 'mmdet.LoadImageFromFile'},
            {'type': 'mmdet.LoadAnnotations', 'with_bbox': True},
            {'type': 'mmdet.PackDetInputs', 'meta_keys': ('img_id', 'annotated_labels')},
        ],
    )
    packed = dataset[0]
    assert packed['inputs'].shape == (3, 30, 40) and packed['inputs'].unique().tolist() == [50]
    sample = packed['data_samples']
    assert sample.img_id == 1 and 'annotated_labels' not in sample
    assert sample.gt_instances.bboxes.tensor.tolist() == [[1, 2, 4, 6]]
    assert sample.gt_instances.labels.tolist() == [1] and sample.ignored_instances.labels.tolist() == [2]
    assert len(dataset[1]['data_samples'].gt_instances) == 0


def test_boxes_outside_are_clipped_or_left_out_and_counted(build, log, folder):
    data = content(
        [
            item(1, 1, 2, [-5, 0, 10, 10]),
            item(2, 1, 2, [30, 20, 30, 30]),
            item(3, 2, 2, [50, 0, 5, 5]),
            item(4, 2, 2, [1, 1, 0, 5]),
            item(5, 2, 2, [1, 1, 5, 5]),
        ]
    )
    with pytest.raises(
        DataError, match=r'2 of 5 boxes have no area in their image.*more than the 1 that max_bad_boxes'
    ):
        build(data, max_bad_boxes=1)
    dataset = build(data, max_bad_boxes=0.4)
    assert boxes(dataset, 0) == [([0, 0, 5, 10], 0, 0), ([30, 20, 40, 30], 0, 0)]
    assert boxes(dataset, 1) == [([1, 1, 6, 6], 0, 0)]
    path = folder / 'boxes.json'
    assert log == [
        f'{path}: 2 of 5 boxes have no area in their image (1 have none at all, 1 lie outside; the first is annotation '
        '3) and were left out',
        f'{path}: 2 boxes reached out of their image and were clipped',
        f'{path}: 1 of 3 images have no boxes and were kept as background',
    ]


def test_images_without_boxes_are_kept(build, log):
    data = content([item(1, 2, 2, [1, 1, 5, 5])])
    assert len(build(data)) == 3
    assert 'boxes.json: 2 of 3 images have no boxes and were kept as background' in log[-1]
    dataset = build(data, keep_empty=False)
    assert [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))] == [2]
    assert '2 of 3 images have no boxes and were left out (keep_empty=False)' in log[-1]
    assert len(build(data, keep_empty=False, test_mode=True)) == 3
    with pytest.raises(DataError, match='leaves no image to use'):
        build(content(), keep_empty=False)


def test_missing_files(build, log, folder):
    data = content(images=6)  # 5.png and 6.png are not there
    with pytest.raises(DataError, match='the file .*5.png of image 5 is missing; correct `data_root`'):
        build(data)
    with pytest.raises(DataError, match='2 rows are unusable, more than the 1 that skip_bad allows.*6.png'):
        build(data, skip_bad={'max': 1})
    dataset = build(data, skip_bad={'max': 0.5})
    assert len(dataset) == 4 and dataset.num_skipped == 2
    assert build(data, skip_bad={'max': 0.5}, test_mode=True).metainfo['num_skipped'] == 2
    assert any('skipped 2 of 6 rows' in text for text in log)
    with pytest.raises(DataError, match='1.png of image 1 is missing'):
        build(data, data_prefix='nowhere')
    # not looked for: found out by the pipeline
    unchecked = build(data, check_files=False, pipeline=[{'type': 'mmdet.LoadImageFromFile'}])
    with pytest.raises(DataError, match='boxes.json, image 5: the image .*5.png cannot be read .No such file'):
        unchecked[4]


def test_held_out_classes_are_never_seen(build, log):
    data = content([item(1, 1, 2, [1, 1, 5, 5]), item(2, 1, 9, [1, 1, 5, 5]), item(3, 2, 5, [1, 1, 5, 5])])
    dataset = build(data, held_out=['dog'])
    assert dataset.metainfo['classes'] == ('cat', 'emu')
    # image 1 shows a dog
    assert [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))] == [2, 3]
    assert any('1 of 3 images show held-out classes and were left out' in text for text in log)
    chosen = build(data, classes=['cat'])
    assert len(chosen) == 3 and any('2 boxes are of categories not in `classes`' in text for text in log)
    for settings, message in (
        ({'held_out': ['dog'], 'test_mode': True}, 'held_out is for training'),
        ({'held_out': ['dgo']}, "has no category 'dgo'; did you mean 'dog'"),
        ({'classes': ['cat', 'cat']}, 'must be different names'),
        ({'classes': ['cat', 'dog'], 'held_out': ['dog']}, 'none of them in `held_out`'),
        ({'classes': 'cat'}, 'must be a list of names'),
        ({'classes': ['cat'], 'metainfo': {'classes': ['cat']}}, 'give the class names once'),
        ({'max_bad_boxes': -1}, 'max_bad_boxes=-1 must be a number of boxes'),
        ({'skip_bad': {'maximum': 1}}, 'must be dict'),
    ):
        with pytest.raises(ValueError, match=message):
            build(data, **settings)


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        ('{"images": [', 'boxes.json cannot be read as JSON'),
        ('[]', 'boxes.json holds a list; expected an object'),
        ({'images': []}, "boxes.json has no list 'annotations'"),
        (
            content([item(1, 1, 3, [1, 1, 2, 2])]),
            'annotation 1 has category_id 3, which is none of the 3 in categories',
        ),
        (content([item(1, 7, 2, [1, 1, 2, 2])]), 'annotation 1 has image_id 7, which is none of the 3 in images'),
        (content([item(1, 1, 2, [1, 1, 2, 2])] * 2), 'the annotation id 1 occurs twice'),
        (content([item(1, 1, 2, [1, 1, 2])]), r'annotation 1 has bbox \[1, 1, 2\]; expected four finite numbers'),
        (
            content([item(1, 1, 2, [1, 1, 2, float('nan')])]),
            'annotation 1 has bbox .*nan.*expected four finite numbers',
        ),
        (content([{'id': 1, 'image_id': 1, 'category_id': 2}]), r"annotation number 0 \(from 0\) has no 'bbox'"),
        (content() | {'images': content()['images'] * 2}, 'the image id 1 occurs twice'),
        (content() | {'images': [{'id': 1, 'file_name': 'a', 'height': 3}]}, "image number 0 .* has no 'width'"),
        (
            content() | {'images': [{'id': 1, 'file_name': 'a', 'height': 3, 'width': 0}]},
            'image 1 has width 0 and height 3; expected its size in pixels',
        ),
        (content() | {'categories': [*CATEGORIES, {'id': 5, 'name': 'x'}]}, 'the category id 5 occurs twice'),
        (content() | {'categories': [*CATEGORIES, {'id': 6, 'name': 'emu'}]}, "5 and 6 are both called 'emu'"),
        (content() | {'categories': [{'id': '1', 'name': 'emu'}]}, "category number 0 .* has id '1'"),
    ],
)
def test_unusable_files_have_their_sentence(build, data, message):
    with pytest.raises(DataError, match=message) as error:
        build(data)
    assert 'boxes.json' in str(error.value) and '\n' not in str(error.value)


def test_no_annotation_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no annotation file .*gone.json; make it .docs.data.md'):
        DetectionDataset(str(tmp_path / 'gone.json'))


def searched(dataset):
    return [
        None if (labels := dataset.get_data_info(i).get('annotated_labels')) is None else labels.tolist()
        for i in range(len(dataset))
    ]


def test_annotated_labels_of_merged_files(build):
    data = content(
        [item(1, 1, 2, [1, 1, 5, 5]), item(2, 3, 9, [1, 1, 5, 5]), item(3, 4, 5, [1, 1, 5, 5])],
        images=4,
        sources=[
            {'name': 'pets', 'category_ids': [9, 2]},
            {'name': 'birds', 'category_ids': [5]},
            {'name': 'open', 'federated': True},
        ],
    )
    for image, source in zip(data['images'], ('pets', 'birds', 'open', 'open'), strict=True):
        image['source'] = source
    data['images'][2]['neg_category_ids'] = [2]
    data['images'][3].update(neg_category_ids=[9], not_exhaustive_category_ids=[5])
    # labels: cat 0, emu 1, dog 2
    assert searched(build(data)) == [[0, 2], [1], [0, 2], [2]]
    # of the classes that are left; their labels are others
    assert searched(build(data, classes=['dog', 'cat'])) == [[0, 1], [], [0, 1], [0]]
    assert searched(build(data, class_agnostic=True)) == [None] * 4
    labels = build(data).get_data_info(0)['annotated_labels']
    assert labels.dtype == np.int64
    for change, message in (
        ({'source': 'fish'}, "image 1 has source 'fish', which is none of 'pets', 'birds', 'open'"),
        ({'source': None}, 'image 1 has source None'),
    ):
        with pytest.raises(DataError, match=message):
            build(data | {'images': [data['images'][0] | change, *data['images'][1:]]})
    with pytest.raises(DataError, match=r"the source 'x' has unknown category_ids \[8\]"):
        build(data | {'sources': [{'name': 'x', 'category_ids': [8]}]})


def test_annotated_labels_of_lvis_and_plain_files(build):
    data = content([item(1, 1, 2, [1, 1, 5, 5])])
    assert searched(build(data)) == [None] * 3
    data['images'][0]['neg_category_ids'] = [5]
    data['images'][1].update(neg_category_ids=[9, 5], not_exhaustive_category_ids=[9])
    assert searched(build(data)) == [[0, 1], [1], []]


def test_annotated_labels_reach_the_sample(build):
    data = content([item(1, 1, 2, [1, 1, 5, 5])], sources=[{'name': 'pets', 'category_ids': [9, 2]}])
    for image in data['images']:
        image['source'] = 'pets'
    dataset = build(
        data,
        pipeline=[
            {'type': 'mmdet.LoadImageFromFile'},
            {'type': 'mmdet.LoadAnnotations', 'with_bbox': True},
            {'type': 'mmdet.PackDetInputs', 'meta_keys': ('img_id', 'annotated_labels')},
        ],
    )
    assert dataset[1]['data_samples'].metainfo['annotated_labels'].tolist() == [0, 2]
