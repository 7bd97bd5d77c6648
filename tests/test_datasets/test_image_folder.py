import json

import cv2
import numpy as np
import pytest

from florence_mm.datasets import ImageFolderText
from florence_mm.errors import DataError

PACK = [{'type': 'LoadImage'}, {'type': 'PackImageText'}]


@pytest.fixture
def root(tmp_path):
    root = tmp_path / 'images'
    for i, name in enumerate(['n2/b.png', 'n2/deep/a.JPG', 'n10_big/c.png', 'n10_big/.hidden', 'n1/x.webp']):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path) if path.suffix else str(path) + '.png', np.full((4, 4, 3), i, dtype=np.uint8))
        if name.endswith('.hidden'):
            path.write_text('not an image')
    (root / '.cache').mkdir()
    return root


def samples(dataset):
    return [dataset[i]['data_samples'] for i in range(len(dataset))]


def test_folder_names_are_the_texts(root):
    dataset = ImageFolderText(str(root), pipeline=PACK)
    assert dataset.metainfo['classes'] == ('n1', 'n10 big', 'n2')
    assert [(s.text, int(s.gt_label), s.img_path[len(str(root)) + 1 :]) for s in samples(dataset)] == [
        ('n1', 0, 'n1/x.webp'),
        ('n10 big', 1, 'n10_big/c.png'),
        ('n2', 2, 'n2/b.png'),
        ('n2', 2, 'n2/deep/a.JPG'),
    ]


def test_names_by_folder(root, tmp_path):
    names = {'n1': 'dog', 'n2': 'Dog', 'n10_big': 'cat'}
    (tmp_path / 'names.json').write_text(json.dumps(names))
    for class_names in (names, str(tmp_path / 'names.json')):
        dataset = ImageFolderText(str(root), class_names=class_names, pipeline=PACK)
        # two folders with one name are one class
        assert dataset.metainfo['classes'] == ('cat', 'dog')
        assert [int(s.gt_label) for s in samples(dataset)] == [1, 0, 1, 1]
    with pytest.raises(DataError, match="no name for 'n2' in `class_names`"):
        ImageFolderText(str(root), class_names={'n1': 'a', 'n10_big': 'b'})
    with pytest.raises(DataError, match="no folder for 'n7' in `class_names`"):
        ImageFolderText(str(root), class_names={**names, 'n7': 'x'})


def test_names_in_the_order_of_folders(root):
    dataset = ImageFolderText(str(root), class_names=['seal', 'crane', 'crane'], pipeline=PACK)
    assert dataset.metainfo['classes'] == ('seal', 'crane', 'crane')
    assert [(s.text, int(s.gt_label)) for s in samples(dataset)] == [
        ('seal', 0),
        ('crane', 1),
        ('crane', 2),
        ('crane', 2),
    ]
    assert len({s.label_key for s in samples(dataset)}) == 2
    with pytest.raises(DataError, match='has 3 class folders, but there are 10 names'):
        ImageFolderText(str(root), class_names='digits')


def test_bad_folders(root, tmp_path):
    with pytest.raises(FileNotFoundError, match='there is no image folder'):
        ImageFolderText(str(tmp_path / 'none'))
    (root / 'n1' / 'notes.txt').write_text('x')
    with pytest.raises(DataError, match='notes.txt is not an image'):
        ImageFolderText(str(root))
    dataset = ImageFolderText(str(root), skip_bad={'max': 1})
    assert (len(dataset), dataset.num_skipped) == (4, 1)
    (root / 'n3').mkdir()
    with pytest.raises(DataError, match='the class folder .*n3 is empty'):
        ImageFolderText(str(root), skip_bad={'max': 1})
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match='has no class folders'):
        ImageFolderText(str(tmp_path / 'empty'))
