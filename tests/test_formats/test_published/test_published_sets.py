"""Every published layout as torchvision reads it, and what is wrong with files of such sets."""

import hashlib
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from florence_mm.corpora.published_digits import PUBLISHED, write_published_digits
from florence_mm.errors import DataError
from florence_mm.formats.published import READERS
from florence_mm.language.prompts import get_class_names

DIGITS = get_class_names('digits')
SPLITS = {'dtd': 3, 'fgvc_aircraft': 3, 'flowers102': 3, 'voc2007': 3, 'imagenet1k': 1}
WHOLE = ('isic', 'eurosat', 'crop_disease', 'chestx')


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('published')
    for name in PUBLISHED:
        write_published_digits(name, folder, train=3, val=2, test=2)
    return folder


@pytest.fixture
def copy(root, tmp_path):
    """One set's files, which a test may damage."""

    def make(folder):
        shutil.copytree(root / folder, tmp_path / folder)
        return tmp_path

    return make


def splits_of(name):
    return ('all',) if name in WHOLE else ('test', 'train', 'val')[: SPLITS.get(name, 2)]


def pairs(images, labels):
    """Files or pixels with the class of each."""
    keys = [image.tobytes() if isinstance(image, np.ndarray) else str(image) for image in images]
    return sorted(zip(keys, labels, strict=True))


def theirs(name, root, split):
    """Images and class names of a split by torchvision."""
    from torchvision import datasets

    def files(found, attribute='_image_files', names=None):
        names = names or found.classes
        return getattr(found, attribute), [names[label] for label in found._labels]

    if name == 'food101':
        return files(datasets.Food101(root, split))
    if name == 'dtd':
        # torchvision expects its archive's folder inside one of the same name
        (root / 'nested').mkdir(exist_ok=True)
        if not (root / 'nested/dtd').exists():
            (root / 'nested/dtd').symlink_to(root)
        return files(datasets.DTD(root / 'nested', split))
    if name == 'oxford_pets':
        found = datasets.OxfordIIITPet(root, 'trainval' if split == 'train' else 'test')
        return found._images, [DIGITS[label] for label in found._labels]
    if name == 'fgvc_aircraft':
        return files(datasets.FGVCAircraft(root, split))
    if name == 'flowers102':
        return files(datasets.Flowers102(root, split), names=DIGITS)
    if name == 'stanford_cars':
        found = datasets.StanfordCars(root, split)
        return [path for path, _ in found._samples], [found.classes[label] for _, label in found._samples]
    return None


@pytest.mark.parametrize('name', ['food101', 'dtd', 'oxford_pets', 'fgvc_aircraft', 'flowers102', 'stanford_cars'])
def test_torchvision_reads_the_same_images_with_the_same_classes(name, root, monkeypatch):
    from torchvision.datasets import Flowers102

    monkeypatch.setattr(Flowers102, '_check_integrity', lambda self: True)  # of the published bytes
    for split in splits_of(name):
        data = READERS[name](root, split)
        images, names = theirs(name, root, split)
        names_of = DIGITS if name == 'flowers102' else data.names
        # links inside the path are followed
        expected = pairs([Path(image).resolve() for image in images], names)
        assert pairs([image.resolve() for image in data.images], [names_of[k] for k in data.labels]) == expected


@pytest.mark.parametrize('name', PUBLISHED)
def test_splits_are_whole_and_apart(name, root):
    seen = []
    for split in splits_of(name):
        data = READERS[name](root, split)
        number = {'train': 3, 'val': 2, 'test': 2, 'all': 2}[split]
        if name == 'caltech101':
            number = {'train': 30, 'test': 2}[split]
        classes = 7 if name in ('isic', 'chestx') else 10
        assert len(data.names) == classes
        if data.labels.ndim == 2:
            assert ((data.labels == 1).sum(1) == 1).all() and (data.labels == 0).any()
            labels = data.labels.argmax(1)
        else:
            labels = data.labels
        assert np.bincount(labels).tolist() == [number] * classes
        if not isinstance(data.images, np.ndarray):
            assert all(path.is_file() for path in data.images)
        seen += [key for key, _ in pairs(data.images, labels)]
    assert len(set(seen)) == len(seen)
    with pytest.raises(ValueError, match="split='minival' must be one of"):
        READERS[name](root, 'minival')


def test_a_digit_has_its_own_name(root):
    # files of these sets say what they show
    for name in ('sun397', 'caltech101', 'dtd', 'food101', 'oxford_pets', 'eurosat', 'crop_disease'):
        data = READERS[name](root, splits_of(name)[0])
        for path, label in zip(data.images, data.labels, strict=True):
            assert data.names[label].split('___')[0].split()[-1] in path.as_posix().rsplit('/', 2)[1] + path.name
    # the others by their pixels: a digit as it is in a set that names files
    plain = READERS['cifar10'](root, 'test')
    by_pixels = {image.tobytes(): plain.names[label] for image, label in zip(plain.images, plain.labels, strict=True)}
    other = READERS['cifar100'](root, 'test')
    assert [by_pixels[image.tobytes()] for image in other.images] == [other.names[label] for label in other.labels]


def test_imagenet_as_folders_is_as_with_the_devkit(copy):
    folder = copy('imagenet')
    flat = READERS['imagenet1k'](folder, 'test')
    assert flat.names == tuple(f'n{digit:08d}' for digit in range(10))
    for path, label in zip(flat.images, flat.labels, strict=True):
        (path.parent / flat.names[label]).mkdir(exist_ok=True)
        path.rename(path.parent / flat.names[label] / path.name)
    nested = READERS['imagenet1k'](folder, 'test')
    assert sorted((p.name, k) for p, k in zip(nested.images, nested.labels, strict=True)) == sorted(
        (p.name, k) for p, k in zip(flat.images, flat.labels, strict=True)
    )
    (folder / 'imagenet/val/strawberry').mkdir()
    with pytest.raises(DataError, match='strawberry is no WordNet id'):
        READERS['imagenet1k'](folder, 'test')


def test_cifar_as_bytes_is_as_pickles(copy, tmp_path):
    folder = copy('cifar-100-python')
    python = {split: READERS['cifar100'](folder, split) for split in ('train', 'test')}
    shutil.rmtree(folder / 'cifar-100-python')
    binary = tmp_path / 'cifar-100-binary'
    binary.mkdir()
    (binary / 'fine_label_names.txt').write_text('\n'.join(DIGITS) + '\n')
    for split, data in python.items():
        rows = [
            bytes([7, label]) + image.transpose(2, 0, 1).tobytes()
            for image, label in zip(data.images, data.labels, strict=True)
        ]
        (binary / f'{split}.bin').write_bytes(b''.join(rows))
        again = READERS['cifar100'](folder, split)
        assert np.array_equal(again.images, data.images) and np.array_equal(again.labels, data.labels)
        assert again.names == data.names
    (binary / 'test.bin').write_bytes(b''.join(rows)[:-5])
    with pytest.raises(DataError, match=r'test.bin has \d+ bytes, no multiple of 3074'):
        READERS['cifar100'](folder, 'test')


class Runs:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, 'was here')


def test_nothing_in_a_pickle_runs(copy, tmp_path):
    folder = copy('cifar-10-batches-py')
    content = {b'data': Runs(tmp_path / 'proof'), b'labels': []}
    (folder / 'cifar-10-batches-py/test_batch').write_bytes(pickle.dumps(content, 2))
    with pytest.raises(DataError, match=r'test_batch is not a file of CIFAR \(it names .*\); download it again'):
        READERS['cifar10'](folder, 'test')
    assert not (tmp_path / 'proof').exists()


@pytest.mark.parametrize(
    'content, says',
    [
        (b'', 'test_batch is not a file of CIFAR'),
        (pickle.dumps([1]), 'holds no table of labels and pixels'),
        (pickle.dumps({b'data': b'abc', b'labels': [1]}), "has no 'data' of the published kind"),
        (pickle.dumps({b'data': np.zeros((2, 3072), np.float32), b'labels': [1, 2]}, 2), "has no 'data'"),
        (pickle.dumps({b'data': np.zeros((2, 3072), np.uint8), b'labels': [1]}, 2), r'\(2, 3072\) and 1 labels'),
        (pickle.dumps({b'data': np.zeros((1, 3072), np.uint8), b'labels': [10]}, 2), 'whole numbers from 0 to 9'),
        (pickle.dumps({b'data': np.zeros((1, 3072), np.uint8), b'labels': [True]}, 2), 'whole numbers from 0 to 9'),
    ],
)
def test_damaged_pickles(content, says, copy):
    folder = copy('cifar-10-batches-py')
    (folder / 'cifar-10-batches-py/test_batch').write_bytes(content)
    with pytest.raises(DataError, match=says):
        READERS['cifar10'](folder, 'test')


def matlab(folder, file, **values):
    scipy.io.savemat(folder / file, values)


@pytest.mark.parametrize(
    'name, top, damage, says',
    [
        ('food101', 'food-101', lambda f: (f / 'meta/test.txt').write_text('pizza/1\n'), "test.txt, line 1: 'pizza'"),
        ('food101', 'food-101', lambda f: (f / 'meta/test.txt').write_text('../one/1\n'), 'line 1: .* is no CLASS/'),
        ('food101', 'food-101', lambda f: (f / 'meta/classes.txt').unlink(), 'classes.txt does not exist'),
        ('sun397', 'SUN397', lambda f: (f / 'Testing_01.txt').write_text('/a/abbey/x.jpg\n'), "'a/abbey' is none of"),
        ('dtd', 'dtd', lambda f: shutil.rmtree(f / 'images'), 'there is no folder .*images'),
        (
            'oxford_pets',
            'oxford-iiit-pet',
            lambda f: (f / 'annotations/test.txt').write_text('zero_1 1 1 1\none_1 1 1 1\n'),
            "image one_1: breed 1 is 'zero' elsewhere",
        ),
        (
            'oxford_pets',
            'oxford-iiit-pet',
            lambda f: (f / 'annotations/test.txt').write_text('zero_1 2 1 1\n'),
            'lacks some of the numbers 1 to 2',
        ),
        (
            'oxford_pets',
            'oxford-iiit-pet',
            lambda f: (f / 'annotations/test.txt').write_text('zero_1 one 1 1\n'),
            "image zero_1: 'one' must be a whole number",
        ),
        (
            'fgvc_aircraft',
            'fgvc-aircraft-2013b',
            lambda f: (f / 'data/images_variant_test.txt').write_text('0000001\n'),
            r'line 1: .*0000001.* has 1 cells',
        ),
        (
            'voc2007',
            'VOCdevkit',
            lambda f: (f / 'VOC2007/ImageSets/Main/two_test.txt').write_text('000001 1\n'),
            'two_test.txt lists other images than eight_test.txt',
        ),
        (
            'voc2007',
            'VOCdevkit',
            lambda f: (f / 'VOC2007/ImageSets/Main/eight_test.txt').write_text('000001 2\n'),
            "image 000001: '2' must be a whole number from -1 to 1",
        ),
        ('flowers102', 'flowers-102', lambda f: (f / 'setid.mat').unlink(), 'there is no file .*setid.mat'),
        ('flowers102', 'flowers-102', lambda f: (f / 'setid.mat').write_bytes(b'MATLAB 5'), 'cannot be read as a MAT'),
        ('flowers102', 'flowers-102', lambda f: matlab(f, 'setid.mat', trnid=[1]), "setid.mat has no 'tstid'"),
        (
            'flowers102',
            'flowers-102',
            lambda f: matlab(f, 'setid.mat', tstid=[1, 4000]),
            'tstid of .* must be whole numbers from 1 to 70',
        ),
        (
            'flowers102',
            'flowers-102',
            lambda f: matlab(f, 'imagelabels.mat', labels=[1.5]),
            'the labels of .* must be whole numbers',
        ),
        (
            'stanford_cars',
            'stanford_cars',
            lambda f: matlab(f, 'cars_test_annos_withlabels.mat', annotations=np.zeros(3)),
            'has no annotations with class and fname',
        ),
        (
            'stanford_cars',
            'stanford_cars',
            lambda f: (f / 'cars_test_annos_withlabels.mat').unlink(),
            'there is no file .*cars_test_annos_withlabels.mat',
        ),
        (
            'imagenet1k',
            'imagenet',
            lambda f: (f / 'ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt').write_text('1\n'),
            'has images that .* does not number',
        ),
        (
            'isic',
            'isic2018',
            lambda f: next(f.rglob('*.csv')).write_text('image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\na,1,1,0,0,0,0,0\n'),
            'line 2: 2 classes are 1; expected one',
        ),
        ('isic', 'isic2018', lambda f: next(f.rglob('*.csv')).write_text('image,MEL\na,1\n'), "there is no 'NV'"),
        ('chestx', 'chestx', lambda f: (f / 'Data_Entry_2017.csv').unlink(), 'there is no file .*Data_Entry_2017'),
    ],
)
def test_damaged_sets_are_refused_in_a_sentence(name, top, damage, says, copy):
    folder = copy(top)
    damage(folder / top)
    with pytest.raises(DataError, match=says):
        READERS[name](folder, splits_of(name)[0])


def test_difficult_objects_are_passed_over(root):
    data = READERS['voc2007'](root, 'test')
    for column, name in enumerate(data.names):
        lines = (root / f'VOCdevkit/VOC2007/ImageSets/Main/{name}_test.txt').read_text().split('\n')[:-1]
        assert [int(line.split()[1]) for line in lines] == data.labels[:, column].tolist()
        assert [line.split()[0] for line in lines] == [path.stem for path in data.images]


def test_chest_images_have_one_finding_of_seven(root):
    data = READERS['chestx'](root, 'all')
    rows = [line.split(',') for line in (root / 'chestx/Data_Entry_2017.csv').read_text().split('\n')[1:-1]]
    found = {path.name: data.names[label] for path, label in zip(data.images, data.labels, strict=True)}
    for image, finding, _ in rows:
        assert found.get(image) == (None if finding in ('No Finding', 'Mass|Nodule', 'Hernia') else finding)


def test_thirty_images_of_caltech_train_by_the_hash_of_their_name(root):
    for split, kept in (('train', slice(0, 30)), ('test', slice(30, None))):
        data = READERS['caltech101'](root, split)
        for folder in (root / 'caltech-101/101_ObjectCategories').iterdir():
            names = [f'{folder.name}/{file.name}' for file in folder.iterdir()]
            expected = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[kept]
            found = [f'{path.parent.name}/{path.name}' for path in data.images if path.parent == folder]
            assert sorted(expected) == sorted(found)
