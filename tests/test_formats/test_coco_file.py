import json

import pytest

from florence_mm.errors import DataError
from florence_mm.formats.coco import clip_box, read_coco_file


@pytest.mark.parametrize(
    ('box', 'corners', 'problem'),
    [
        ([0, 0, 40, 30], (0, 0, 40, 30), None),
        ([-2, 5, 10, 10], (0, 5, 8, 15), 'clipped'),
        ([35, 25, 10, 10], (35, 25, 40, 30), 'clipped'),
        ([30.004, 0, 10, 10], (30.004, 0, 40, 10), None),  # rounded
        ([40, 0, 5, 5], None, 'outside'),
        ([0, -9, 5, 9], None, 'outside'),
        ([3, 3, 0, 5], None, 'no area'),
        ([3, 3, 5, -1], None, 'no area'),
    ],
)
def test_clip_box(box, corners, problem):
    found, what = clip_box(box, 40, 30)
    assert what == problem
    if corners is not None:
        assert found == corners


def test_a_good_file_comes_back_as_it_is(tmp_path):
    content = {
        'info': {'year': 2026},
        'images': [{'id': 7, 'file_name': 'a/b.png', 'width': 3, 'height': 4.0, 'source': 'x'}],
        'annotations': [{'id': 1, 'image_id': 7, 'category_id': 2, 'bbox': [-9, 0, 0, 1e9]}],
        'categories': [{'id': 2, 'name': 'cat', 'frequency': 'r'}],
    }
    (tmp_path / 'good.json').write_text(json.dumps(content))
    assert read_coco_file(tmp_path / 'good.json') == content


def test_lvis_names_pictures_by_their_address(tmp_path):
    image = {'id': 7, 'coco_url': 'http://images.cocodataset.org/val2017/000000000007.jpg', 'width': 3, 'height': 4}
    (tmp_path / 'lvis.json').write_text(json.dumps({'images': [image], 'annotations': [], 'categories': []}))
    assert read_coco_file(tmp_path / 'lvis.json')['images'][0]['file_name'] == 'val2017/000000000007.jpg'


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / 'latin.json').write_bytes(b'{"\xff": 1}')
    with pytest.raises(DataError, match='latin.json is not UTF-8 text'):
        read_coco_file(tmp_path / 'latin.json')
