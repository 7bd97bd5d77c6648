"""Open Images' CSV files, good and bad."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from florence_mm.errors import DataError
from florence_mm.preparation.merging import merge_detection
from florence_mm.preparation.merging.sources import make_plan

FILES = {
    'boxes.csv': 'ImageID,LabelName,XMin,XMax,YMin,YMax\na,/m/1,0,0.5,0.25,0.75\n',
    'classes.csv': 'LabelName,DisplayName\n/m/1,Tortoise\n/m/2,"Cup, saucer"\n/m/3,Box\n',
    'labels.csv': 'ImageID,LabelName,Confidence\na,/m/1,1\na,/m/2,0\na,/m/3,1\na,/m/unboxable,1\n',
    'sizes.csv': 'ImageID,Width,Height\na,64,48\n',
}


def plan(tmp_path, from_csv=True, **changed):
    for name, text in {**FILES, **{f'{key}.csv': value for key, value in changed.items()}}.items():
        (tmp_path / name).write_text(text)
    where = {'image_sizes': str(tmp_path / 'sizes.csv')} if from_csv else {'image_root': str(tmp_path / 'images')}
    return make_plan(
        [
            {
                'name': 'oi',
                'format': 'openimages',
                'ann_file': str(tmp_path / 'boxes.csv'),
                'class_descriptions': str(tmp_path / 'classes.csv'),
                'image_labels': str(tmp_path / 'labels.csv'),
                **where,
            }
        ]
    )


@pytest.mark.parametrize('from_csv', [True, False])
def test_fractions_become_pixels_and_labels_become_verified_classes(tmp_path, from_csv):
    (tmp_path / 'images').mkdir()
    cv2.imwrite(str(tmp_path / 'images' / 'a.jpg'), np.zeros((48, 64, 3), np.uint8))
    result = merge_detection(plan(tmp_path, from_csv), tmp_path / 'out.json')
    content = json.loads(result.out.read_text())
    assert [c['name'] for c in content['categories']] == ['box', 'cup, saucer', 'tortoise']
    # the box class was verified to be there but has no box: it is neither absent nor annotated
    assert content['images'] == [
        {'id': 1, 'file_name': 'a.jpg', 'width': 64, 'height': 48, 'source': 'oi', 'neg_category_ids': [2],
         'not_exhaustive_category_ids': []}
    ]  # fmt: skip
    assert [(a['category_id'], a['bbox'], a['area']) for a in content['annotations']] == [(3, [0, 12, 32, 24], 768)]


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'boxes': 'ImageID,LabelName,XMin,XMax,YMin\na,/m/1,0,1,0\n'}, "boxes.csv, line 2: no 'YMax'"),
        ({'boxes': 'ImageID,LabelName,XMin,XMax,YMin,YMax\na,/m/1,0,x,0,1\n'}, "line 2: `XMax` is 'x'"),
        ({'boxes': 'ImageID,LabelName,XMin,XMax,YMin,YMax\na,/m/9,0,1,0,1\n'}, "class code '/m/9' is not in"),
        ({'boxes': 'ImageID,LabelName,XMin,XMax,YMin,YMax\nb,/m/1,0,1,0,1\n'}, "has no size of the image 'b'"),
        ({'boxes': 'ImageID,LabelName,XMin,XMax,YMin,YMax\n'}, 'has no boxes under its header'),
        ({'labels': 'ImageID,LabelName,Confidence\na,/m/2,0.7\n'}, 'confidence 0 or 1, but this has 0.7'),
        ({'classes': '/m/1,Tortoise\n/m/1,Turtle\n'}, "classes.csv, line 2: the code '/m/1' comes twice"),
        ({'classes': '/m/1\n'}, 'classes.csv, line 1: 1 cells.*expected a class code and a name'),
        ({'sizes': 'ImageID,Width,Height\na,64,0\n'}, 'sizes.csv, line 2: the size 64x0 is not one'),
    ],
)
def test_bad_lines_are_named(tmp_path, changed, message):
    with pytest.raises(DataError, match=message):
        merge_detection(plan(tmp_path, **changed), tmp_path / 'out.json')


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(DataError, match='boxes.csv, line 2: there is no image .*a.jpg'):
        merge_detection(plan(tmp_path, from_csv=False), tmp_path / 'out.json')


def test_a_missing_file_is_named(tmp_path):
    given = plan(tmp_path)
    (tmp_path / 'labels.csv').unlink()
    with pytest.raises(FileNotFoundError, match='labels.csv'):
        merge_detection(given, tmp_path / 'out.json')


def test_sizes_of_turned_images_are_upright(tmp_path):
    (tmp_path / 'images').mkdir()
    image = Image.new('RGB', (64, 48))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / 'images/a.jpg', exif=exif)
    content = json.loads(merge_detection(plan(tmp_path, from_csv=False), tmp_path / 'out.json').out.read_text())
    assert (content['images'][0]['width'], content['images'][0]['height']) == (48, 64)
    # x from 0 to half of 48, y from a quarter to three quarters of 64
    assert content['annotations'][0]['bbox'] == [0, 16, 24, 32]
