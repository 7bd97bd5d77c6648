"""An unusable annotation costs what would be wrong without it, and nothing else."""

import json

import pytest

from florence_mm.datasets import CocoTasks, Flickr30kEntitiesTasks, RefCocoTasks, SceneTextTasks, VisualGenomeTasks
from florence_mm.errors import DataError

SHARED = {'pipeline': [], 'skip_bad': {'max': 9}}
OUTLINE = [0, 0, 20, 0, 20, 10]


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content))
    return str(folder / name)


@pytest.fixture
def instances(tmp_path):
    """Two pictures; of the first, one object has a box outside, and another a polygon of two points."""
    shared = {'image_id': 1, 'category_id': 3, 'iscrowd': 0, 'segmentation': [OUTLINE]}
    content = {
        'images': [{'id': i, 'file_name': f'{i}.png', 'width': 40, 'height': 20} for i in (1, 2)],
        'annotations': [
            {**shared, 'id': 1, 'bbox': [0, 0, 20, 10]},
            {**shared, 'id': 2, 'bbox': [90, 0, 20, 10]},
            {**shared, 'id': 3, 'bbox': [20, 0, 20, 10], 'segmentation': [[1, 2, 3, 4]]},
            {**shared, 'id': 4, 'bbox': [0, 0, 20, 10], 'image_id': 2},
        ],
        'categories': [{'id': 3, 'name': 'dog'}],
    }
    return tmp_path, content


def coco(folder, content, task):
    return CocoTasks(task, write(folder, 'instances.json', content), **SHARED)


def test_of_objects(instances):
    folder, content = instances
    # a row each: two are left of the first picture, one without the outline, and one of the second
    category, outline = (coco(folder, content, task) for task in ('region_category', 'region_segmentation'))
    assert (len(category), category.num_skipped) == (3, 1)
    assert (len(outline), outline.num_skipped) == (2, 2)
    for task in ('detection', 'region_proposal', 'open_vocabulary_detection'):  # incomplete without the object
        found = coco(folder, content, task)
        assert (len(found), found.num_skipped) == (1, 1)
        with pytest.raises(DataError, match=r'image 1: annotation 2 has the box \[90, 0, 20, 10\]'):
            CocoTasks(task, str(folder / 'instances.json'))
    # boxes do not need outlines
    del content['annotations'][1]
    assert [len(row['gt_target'].regions[0].boxes) for row in coco(folder, content, 'detection')] == [1, 1]
    assert len(coco(folder, content, 'detection')[0]['gt_target'].regions) == 2


def test_of_expressions(instances):
    folder, content = instances
    refs = [
        {'ref_id': i, 'ann_id': i, 'image_id': 1, 'split': 'testA', 'sentences': [{'sent': f'dog {i}'}]}
        for i in (1, 2, 3)
    ]
    refs.append({**refs[0], 'ref_id': 4, 'sentences': [{'sent': ' '}]})
    files = {'ref_file': write(folder, 'refs.json', refs), 'ann_file': write(folder, 'instances.json', content)}

    def refcoco(task):
        return RefCocoTasks(task, split='testA', **files, **SHARED)

    grounding = refcoco('phrase_grounding')
    assert [row['prompt_text'] for row in grounding] == ['dog 1', 'dog 3'] and grounding.num_skipped == 2
    assert [row['prompt_text'] for row in refcoco('referring_segmentation')] == ['dog 1']
    assert len(refcoco('region_description')) == 2
    with pytest.raises(DataError, match='has no usable rows'):  # a class of a picture has all its boxes
        refcoco('open_vocabulary_detection')


def test_of_regions(tmp_path):
    # the published file has boxes far outside
    region = {'region_id': 1, 'x': 1, 'y': 1, 'width': 9, 'height': 9, 'phrase': 'a dog'}
    outside = {**region, 'region_id': 2, 'y': -904, 'phrase': 'a cloud'}
    ann_file = write(
        tmp_path, 'regions.json', [{'id': 1, 'regions': [region, outside, {**region, 'x': -1, 'width': 5}]}]
    )
    image_file = write(tmp_path, 'images.json', [{'image_id': 1, 'url': 'x/1.jpg', 'width': 40, 'height': 20}])

    def genome(task):
        return VisualGenomeTasks(task, ann_file, image_file=image_file, **SHARED)

    described = genome('region_description')
    assert (len(described), described.num_skipped) == (2, 1)
    for task in ('dense_region_caption', 'phrase_grounding'):
        with pytest.raises(DataError, match='has no usable rows'):
            genome(task)


def test_of_words(tmp_path):
    words = {
        'imgs': {'a': {'file_name': '1.png', 'width': 40, 'height': 20, 'set': 'val'}},
        'anns': {
            '1': {'image_id': 'a', 'bbox': [20, 0, 20, 10], 'utf8_string': 'ahead'},
            '2': {'image_id': 'a', 'bbox': [0, 0, 0, 10], 'utf8_string': 'STOP'},
        },
    }
    path = write(tmp_path, 'words.json', words)
    read = SceneTextTasks('region_ocr', path, **SHARED)
    assert [row['gt_target'].text for row in read] == ['ahead'] and read.num_skipped == 1
    with pytest.raises(DataError, match='has no usable rows'):
        SceneTextTasks('ocr', path, **SHARED)


def test_pictures_of_textocr_lie_where_its_archives_unpack(tmp_path):
    images = {
        str(i): {'file_name': name, 'width': 4, 'height': 4} for i, name in enumerate(('train/a.jpg', 'train.jpg'))
    }
    words = {str(i): {'image_id': i, 'bbox': [0, 0, 4, 4], 'utf8_string': 'a'} for i in images}
    path = write(tmp_path, 'words.json', {'imgs': images, 'anns': words})
    found = SceneTextTasks('ocr', path, folders={'train': 'train_images'}, pipeline=[])
    assert [row['img_path'] for row in found] == [f'{tmp_path}/train_images/a.jpg', f'{tmp_path}/train.jpg']
    with pytest.raises(ValueError, match="folders='train' must be names by names"):
        SceneTextTasks('ocr', path, folders='train')


def test_captions_need_no_boxes(tmp_path):
    (tmp_path / 'Sentences').mkdir()
    (tmp_path / 'Sentences/7.txt').write_text('[/EN#1/animals A dog] runs .\n')
    (tmp_path / 'val.txt').write_text('7\n')
    shared = {'ann_file': 'val.txt', 'data_root': str(tmp_path), 'pipeline': []}
    assert Flickr30kEntitiesTasks('caption', **shared)[0]['gt_target'].text == 'A dog runs .'
    with pytest.raises(DataError, match='there are no boxes'):
        Flickr30kEntitiesTasks('phrase_grounding', **shared)
