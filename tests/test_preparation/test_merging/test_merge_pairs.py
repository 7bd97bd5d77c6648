"""Merging two sources of one picture: duplicate boxes, the union of what was searched for, unusable files."""

import json
import runpy
from pathlib import Path

import pytest

from florence_mm.datasets import DetectionDataset
from florence_mm.errors import DataError
from florence_mm.preparation.merging import merge_detection
from florence_mm.preparation.merging.sources import make_plan

files = runpy.run_path(str(Path(__file__).parent / 'coco_files.py'))
coco, merged, pair = files['coco'], files['merged'], files['pair']


def test_each_box_is_the_duplicate_of_one_other_at_most(tmp_path):
    plan = pair(tmp_path, [[0, 0, 50, 50]], [[0, 0, 50, 45], [0, 0, 50, 49], [0, 0, 50, 30]])
    content = merged(merge_detection(plan, tmp_path / 'all.json', iou_threshold=0.8))
    # IoUs 0.9, 0.98 and 0.6: the best one is the duplicate
    assert [a['bbox'] for a in content['annotations']] == [[0, 0, 50, 50], [0, 0, 50, 30], [0, 0, 50, 45]]


def test_threshold_is_the_least_iou_of_duplicates(tmp_path):
    plan = pair(tmp_path, [[0, 0, 50, 50]], [[0, 0, 50, 40]])
    assert merge_detection(plan, tmp_path / 'all.json', iou_threshold=0.8).boxes == 1
    assert merge_detection(plan, tmp_path / 'all.json', iou_threshold=0.81).boxes == 2


def test_a_picture_of_two_sources_is_annotated_for_the_union(tmp_path):
    more = {'neg_category_ids': [3], 'not_exhaustive_category_ids': [2]}
    coco(tmp_path / 'a.json', {1: ('p.jpg', 50, 50, {})}, [(1, 1, [0, 0, 9, 9], 0)], {1: 'cat', 2: 'dog'})
    boxes = [(1, 1, [20, 20, 9, 9], 0), (1, 2, [0, 20, 9, 9], 0)]
    coco(tmp_path / 'b.json', {1: ('p.jpg', 50, 50, more)}, boxes, {1: 'emu', 2: 'fox', 3: 'gnu', 4: 'hen'})
    plan = make_plan(
        [{'name': n, 'format': 'coco', 'ann_file': str(tmp_path / f'{n}.json'), 'images': 'c'} for n in 'ab']
    )
    content = merged(merge_detection(plan, tmp_path / 'all.json'))
    # 1 cat, 2 dog, 3 emu, 4 fox, 5 gnu, 6 hen: not every fox has a box, and nobody looked for hens
    assert content['images'][0]['neg_category_ids'] == [2, 5]
    assert content['images'][0]['not_exhaustive_category_ids'] == [4]
    dataset = DetectionDataset(str(tmp_path / 'all.json'), check_files=False)
    assert dataset.get_data_info(0)['annotated_labels'].tolist() == [0, 1, 2, 4]


@pytest.mark.parametrize('crowd', [(1, 0), (0, 1)])
def test_a_crowd_is_no_duplicate(tmp_path, crowd):
    for name, is_crowd in zip('ab', crowd, strict=True):
        coco(tmp_path / f'{name}.json', {1: ('p.jpg', 50, 50, {})}, [(1, 1, [0, 0, 9, 9], is_crowd)], {1: 'cat'})
    plan = make_plan(
        [{'name': n, 'format': 'coco', 'ann_file': str(tmp_path / f'{n}.json'), 'images': 'c'} for n in 'ab']
    )
    assert merge_detection(plan, tmp_path / 'all.json').boxes == 2


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'b': ('p.jpg', (90, 100), {})}, 'p.jpg is one picture .* 100x100 and 90x100'),
        ({'b': ('p.jpg', (0, 100), {})}, r'b.json: images\[0\]: the image is 0x100'),
        ({'b': ('p.jpg', (100, 100), {'neg_category_ids': [4]})}, r'names the category 4, which is not in'),
        ({'b': ('p.jpg', (100, '100'), {})}, "`height` is '100'; expected int"),
    ],
)
def test_bad_images(tmp_path, given, message):
    with pytest.raises(DataError, match=message):
        merge_detection(pair(tmp_path, [[0, 0, 5, 5]], [[0, 0, 5, 5]], **given), tmp_path / 'all.json')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.json', 'b.json']


def test_boxes_without_area_are_counted_and_limited(tmp_path):
    plan = pair(tmp_path, [[0, 0, 5, 5], [3, 3, 0, 4], [200, 0, 5, 5]], [[0, 0, 50, 50]])
    with pytest.raises(DataError, match=r'a.json: annotations\[1\]: the box from \(3, 3\) to \(3, 7\).* 2 of 3 boxes'):
        merge_detection(plan, tmp_path / 'all.json', max_bad_boxes=0.5)
    result = merge_detection(plan, tmp_path / 'all.json', max_bad_boxes=2)
    assert result.boxes == 2
    assert json.loads(result.report.read_text())['sources'][0]['boxes_without_area_left_out'] == 2


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c['annotations'][0].update(image_id=5), 'no image with the id 5'),
        (lambda c: c['annotations'][0].update(category_id=5), 'no category with the id 5'),
        (lambda c: c['annotations'][0].update(bbox=[0, 1, 2]), r'bbox \[0, 1, 2\]; expected four'),
        (lambda c: c['annotations'][0].pop('bbox'), '`bbox` is missing'),
        (lambda c: c['images'].append(dict(c['images'][0])), r'images\[1\]: another image has the id 1'),
        (lambda c: c['categories'].append({'id': 1, 'name': 'dog'}), "category id 1 is also that of 'cat'"),
        (lambda c: c['categories'].append(3), "entry 1 of 'categories' must be an object, but is 3"),
        (lambda c: c.pop('annotations'), "no entries in a list 'annotations'"),
        (lambda c: c['images'][0].pop('file_name'), '`file_name` is missing'),
    ],
)
def test_bad_files_are_named_with_the_entry(tmp_path, change, message):
    plan = pair(tmp_path, [[0, 0, 5, 5]], [[0, 0, 5, 5]])
    content = json.loads((tmp_path / 'b.json').read_text())
    change(content)
    (tmp_path / 'b.json').write_text(json.dumps(content))
    with pytest.raises(DataError, match=f'b.json.*{message}'):
        merge_detection(plan, tmp_path / 'all.json')


def test_a_cut_off_file_is_an_error(tmp_path):
    plan = pair(tmp_path, [[0, 0, 5, 5]], [[0, 0, 5, 5]])
    (tmp_path / 'b.json').write_text((tmp_path / 'b.json').read_text()[:-30])
    with pytest.raises(DataError, match='b.json is not a whole JSON file'):
        merge_detection(plan, tmp_path / 'all.json')
