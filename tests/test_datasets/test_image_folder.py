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
    with pytest.raises(DataError, match='3 class folders, but there are 10 names; give `class_names` as a dict'):
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


@pytest.fixture
def pets(tmp_path):
    """Three class folders with one picture each, whose value tells the folder."""
    for value, name in enumerate(['Beagle', 'cat', 'guinea_pig']):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / 'a.png'), np.full((4, 4, 3), 50 * value, dtype=np.uint8))
    return tmp_path


def labelled(root, names):
    """Text and label of each picture, by the picture's value."""
    found = {}
    for data in (dataset := ImageFolderText(str(root), class_names=names, pipeline=PACK)):
        sample = data['data_samples']
        found[int(data['inputs'].max())] = (sample.text, int(sample.gt_label))
    return found, dataset.metainfo['classes']


@pytest.mark.parametrize(
    'names',
    [['cat', 'guinea pig', 'beagle'], ['guinea_pig', 'Beagle', 'cat'], ['Beagle', 'cat', 'guinea pig']],
    ids=['shuffled', 'underscores', 'sorted'],
)
def test_names_that_are_folders_belong_to_them_in_any_order(pets, names, tmp_path_factory):
    right = {0: 'beagle', 50: 'cat', 100: 'guinea pig'}
    file = tmp_path_factory.mktemp('names') / 'names.txt'
    file.write_text('\n'.join(names))
    for given in (names, str(file)):
        found, classes = labelled(pets, given)
        assert classes == tuple(names)
        for value, name in right.items():
            text, label = found[value]
            assert text.lower().replace('_', ' ') == name
            assert label == [item.lower().replace('_', ' ') for item in names].index(name)


def test_names_whose_order_cannot_be_told_are_refused(pets):
    for names, message in (
        (['cat', 'guinea pig', 'begle'], "such as 'cat', but none is that of 'Beagle'"),
        (
            ['a photo of a cat', 'a beagle', 'a rodent'],
            "'a photo of a cat' is in the place of 'Beagle', but names 'cat'",
        ),
        (['cat', 'cat', 'beagle'], 'none is that of'),
    ):
        with pytest.raises(DataError, match=f'{message}.*; give `class_names` as a dict from folder to name'):
            ImageFolderText(str(pets), class_names=names)
    found, _ = labelled(pets, ['hound', 'tabby', 'rodent'])
    assert found == {0: ('hound', 0), 50: ('tabby', 1), 100: ('rodent', 2)}
    found, classes = labelled(pets, {'cat': 'tabby', 'guinea_pig': 'rodent', 'Beagle': 'hound'})
    assert found == {0: ('hound', 0), 50: ('tabby', 2), 100: ('rodent', 1)}
    assert classes == ('hound', 'rodent', 'tabby')


def test_numbers_as_folders_are_places_in_the_list(tmp_path):
    for number in range(12):
        (tmp_path / str(number)).mkdir()
        cv2.imwrite(str(tmp_path / str(number) / 'a.png'), np.full((4, 4, 3), number, dtype=np.uint8))
    names = [f'number {chr(97 + number)}' for number in range(12)]
    found, _ = labelled(tmp_path, names)
    # sorted as texts, folder 10 would be the third
    assert found == {number: (name, number) for number, name in enumerate(names)}
    (tmp_path / '0').rename(tmp_path / '12')
    with pytest.raises(DataError, match='the folders are numbers whose order as texts is another'):
        ImageFolderText(str(tmp_path), class_names=names)


def test_pictures_without_a_class_and_links(pets):
    cv2.imwrite(str(pets / 'lost.png'), np.zeros((4, 4, 3), np.uint8))
    (pets / 'notes.txt').write_text('about these pictures')
    with pytest.raises(DataError, match='lost.png is in no class folder'):
        ImageFolderText(str(pets))
    dataset = ImageFolderText(str(pets), skip_bad={'max': 1})
    assert (len(dataset), dataset.num_skipped) == (3, 1)
    (pets / 'lost.png').unlink()
    # what a link leads to is read, and a link to the folder around it has an end
    more = pets / '.elsewhere'
    more.mkdir()
    cv2.imwrite(str(more / 'b.png'), np.zeros((4, 4, 3), np.uint8))
    (pets / 'cat' / 'more').symlink_to(more)
    (pets / 'cat' / 'around').symlink_to(pets / 'cat')
    files = [info['img_path'] for info in map(ImageFolderText(str(pets)).get_data_info, range(4))]
    assert [file[len(str(pets)) + 1 :] for file in files] == [
        'Beagle/a.png',
        'cat/a.png',
        'cat/more/b.png',
        'guinea_pig/a.png',
    ]


def test_names_in_files_of_other_kinds(pets, tmp_path_factory):
    file = tmp_path_factory.mktemp('names') / 'names.json'
    for content, message in (
        (b'{"cat": "tabby"', 'names.json cannot be read as JSON'),
        (b'[' * 100000, 'nested too deeply'),
        (b'{"cat": null, "Beagle": "x", "guinea_pig": "y"}', "the folder 'cat' has the name None"),
        (b'{"cat": " ", "Beagle": "x", "guinea_pig": "y"}', "the folder 'cat' has the name ' '"),
        (b'7', 'holds a number; expected an object or a list'),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match=message):
            ImageFolderText(str(pets), class_names=str(file))
    file.write_text('["cat", "beagle", "guinea pig"]', encoding='utf-16')
    assert labelled(pets, str(file))[0][50] == ('cat', 0)
