"""A few pictures a class."""

import hashlib
import json
import random

import pytest

from florence_mm.errors import DataError
from florence_mm.preparation.few_shot import few_shot_images, write_few_shot


def content(classes_of_images):
    """A COCO-format file: file name -> class ids of its boxes."""
    images = [{'id': i, 'file_name': name, 'width': 9, 'height': 9} for i, name in enumerate(classes_of_images)]
    pairs = [(i, class_) for i, classes in enumerate(classes_of_images.values()) for class_ in classes]
    return {
        'images': images,
        'annotations': [
            {'id': n, 'image_id': i, 'category_id': class_, 'bbox': [0, 0, 5, 5]} for n, (i, class_) in enumerate(pairs)
        ],
        'categories': [{'id': 1, 'name': 'cat'}, {'id': 2, 'name': 'dog'}, {'id': 3, 'name': 'owl'}],
    }


def test_the_rule_worked_by_hand():
    given = {'a': [1], 'b': [1, 1], 'c': [1, 2], 'd': [2], 'e': [2], 'f': [], 'g': [1]}
    by_rank = sorted('abcdefg', key=lambda name: hashlib.blake2b(f'0:{name}'.encode()).digest())
    # dogs, in the fewest pictures, go first; a picture of both counts for cats too
    dogs = [name for name in by_rank if name in 'cde'][:2]
    cats = [name for name in by_rank if name in 'abcg' and name not in dogs][: 1 if 'c' in dogs else 2]
    chosen = few_shot_images(content(given), 2)
    assert [list(given)[i] for i in chosen] == sorted(dogs + cats)


def test_a_crowd_shows_no_class(tmp_path):
    given = content({'crowd.jpg': [1], 'cat.jpg': [1], 'both.jpg': [2, 1]})
    for annotation in (0, 3):  # the cats of the first and of the last picture
        given['annotations'][annotation]['iscrowd'] = 1
    # dogs are in the last picture alone, whose crowd of cats leaves the cats without a picture
    assert few_shot_images(given, 1) == [1, 2]
    (tmp_path / 'all.json').write_text(json.dumps(given))
    assert write_few_shot(tmp_path / 'all.json', tmp_path / 'few.json', 1) == {'cat': 1, 'dog': 1, 'owl': 0}
    # a crowd stays in the file of its picture
    subset = json.loads((tmp_path / 'few.json').read_text())
    assert [item.get('iscrowd', 0) for item in subset['annotations']] == [0, 0, 1]


def test_every_class_has_enough_and_the_order_of_the_file_does_not_matter():
    rng = random.Random(0)
    given = {f'{i}.jpg': rng.choices([1, 1, 1, 2, 2, 3], k=2) for i in range(100)}
    file = content(given)
    chosen = few_shot_images(file, 5)
    for class_ in (1, 2, 3):
        assert sum(class_ in list(given.values())[i] for i in chosen) >= 5
    assert len(chosen) <= 15
    rng.shuffle(file['images'])
    rng.shuffle(file['annotations'])
    assert sorted(few_shot_images(file, 5)) == sorted(chosen)
    assert sorted(few_shot_images(file, 5, seed=1)) != sorted(chosen)


def test_the_subset_keeps_all_boxes_of_its_pictures_and_all_classes(tmp_path):
    given = content({'a': [1, 1, 2], 'b': [2], 'c': [2]})
    (tmp_path / 'all.json').write_text(json.dumps(given))
    counts = write_few_shot(tmp_path / 'all.json', tmp_path / 'few.json', 1)
    assert counts == {'cat': 1, 'dog': 1, 'owl': 0}
    subset = json.loads((tmp_path / 'few.json').read_text())
    assert [image['file_name'] for image in subset['images']] == ['a']
    assert subset['annotations'] == given['annotations'][:3]
    assert subset['categories'] == given['categories']


def test_bad_input(tmp_path):
    (tmp_path / 'all.json').write_text(json.dumps(content({'a': []})))
    with pytest.raises(DataError, match='no boxes to choose'):
        write_few_shot(tmp_path / 'all.json', tmp_path / 'few.json', 1)
    with pytest.raises(DataError, match='0 images per class'):
        write_few_shot(tmp_path / 'all.json', tmp_path / 'few.json', 0)
