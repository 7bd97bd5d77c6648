"""Every published layout as torchvision reads it, and what is wrong with files of such sets."""

import hashlib
import pickle
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

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
        return files(datasets.DTD(root, split))
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
    if name in ('cifar10', 'cifar100'):
        found = {'cifar10': datasets.CIFAR10, 'cifar100': datasets.CIFAR100}[name](root, split == 'train')
        return list(found.data), [found.classes[label] for label in found.targets]
    if name == 'voc2007':
        # its labels are boxes; what is compared is which images are in a split
        found = datasets.VOCSegmentation(root, '2007', {'test': 'test', 'train': 'train', 'val': 'val'}[split])
        return found.images, None
    if name == 'imagenet1k':
        found = datasets.ImageNet(root / 'imagenet', 'val')
        return [path for path, _ in found.samples], [found.wnids[label] for label in found.targets]
    # these have no splits
    kind = {'caltech101': datasets.Caltech101, 'sun397': datasets.SUN397, 'eurosat': datasets.EuroSAT}[name]
    found = kind(root)
    if name == 'caltech101':
        folder = Path(found.root) / '101_ObjectCategories'
        rows = [(c, f'image_{number:04d}.jpg') for c, number in zip(found.y, found.index, strict=True)]
        return [folder / found.categories[c] / file for c, file in rows], [found.categories[c] for c, _ in rows]
    if name == 'sun397':
        return found._image_files, [found.classes[label] for label in found._labels]
    return [path for path, _ in found.samples], [found.classes[label] for label in found.targets]


def python2_pickle(value):
    """A pickle of protocol 2 as Python 2 wrote the published ones, with byte strings where Python 3 writes texts."""

    def text(content):
        return b'T' + struct.pack('<i', len(content)) + content

    def number(content):
        return b'J' + struct.pack('<i', content)

    def opcodes(item):
        if isinstance(item, dict):
            return b'}(' + b''.join(opcodes(part) for pair in item.items() for part in pair) + b'u'
        if isinstance(item, list):
            return b'](' + b''.join(map(opcodes, item)) + b'e'
        if isinstance(item, np.ndarray):
            kind = b'cnumpy\ndtype\n(' + text(b'u1') + number(0) + number(1) + b'tR'
            kind += b'(' + number(3) + text(b'|') + b'NNN' + number(-1) * 2 + number(0) + b'tb'
            made = b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(' + number(0) + b't' + text(b'b') + b'tR'
            shape = b'(' + b''.join(map(number, item.shape)) + b't'
            return made + b'(' + number(1) + shape + kind + b'\x89' + text(item.tobytes()) + b'tb'
        return number(item) if isinstance(item, int) else text(item)

    return b'\x80\x02' + opcodes(value) + b'.'


def as_torchvision_unpacks(root, folder):
    """A copy of all sets with the folders and files that torchvision's own download makes."""
    shutil.copytree(root, folder, dirs_exist_ok=True)
    (folder / 'dtd').rename(folder / 'inner')
    (folder / 'dtd').mkdir()
    (folder / 'inner').rename(folder / 'dtd/dtd')
    (folder / 'caltech-101').rename(folder / 'caltech101')
    for owner in (folder / 'caltech101/101_ObjectCategories').iterdir():  # which counts its files
        for number, file in enumerate(sorted(owner.iterdir()), 1):
            file.rename(owner / f'image_{number:04d}.jpg')
    # a class of the set that torchvision leaves out
    clutter = folder / 'caltech101/101_ObjectCategories/BACKGROUND_Google/image_0001.jpg'
    clutter.parent.mkdir()
    shutil.copy(file.with_name('image_0001.jpg'), clutter)
    for file in (folder / 'SUN397').rglob('*.jpg'):  # of which it takes those with this name
        file.rename(file.with_name(f'sun_{file.name}'))
    for file in ('Training_01.txt', 'Testing_01.txt'):
        path = folder / 'SUN397' / file
        path.write_text(re.sub(r'(\w+\.jpg)', r'sun_\1', path.read_text()))
    for place in (folder / 'cifar-10-batches-py', folder / 'cifar-100-python'):
        for file in place.iterdir():
            file.write_bytes(python2_pickle(pickle.loads(file.read_bytes())))
    for place in ('Segmentation', 'Main'):
        (folder / 'VOCdevkit/VOC2007/ImageSets' / place).mkdir(exist_ok=True)
    for split in ('train', 'val', 'test'):
        lists = folder / 'VOCdevkit/VOC2007/ImageSets'
        shutil.copy(lists / f'Main/{split}.txt', lists / f'Segmentation/{split}.txt')
    names = READERS['imagenet1k'](folder, 'test')
    for path, label in zip(names.images, names.labels, strict=True):
        (path.parent / names.names[label]).mkdir(exist_ok=True)
        path.rename(path.parent / names.names[label] / path.name)
    torch.save(({name: (name,) for name in names.names}, []), folder / 'imagenet/meta.bin')
    shutil.rmtree(folder / 'imagenet/ILSVRC2012_devkit_t12')
    return folder


@pytest.fixture(scope='module')
def unpacked(root, tmp_path_factory):
    return as_torchvision_unpacks(root, tmp_path_factory.mktemp('torchvision') / 'data')


@pytest.mark.parametrize('name', [name for name in PUBLISHED if name not in ('isic', 'chestx', 'crop_disease')])
def test_torchvisions_own_layout_has_the_same_images_and_classes(name, unpacked, monkeypatch):
    from torchvision import datasets

    # of the published bytes
    for kind in (datasets.Flowers102, datasets.CIFAR10, datasets.Caltech101):
        monkeypatch.setattr(kind, '_check_integrity', lambda self: True)
    monkeypatch.setattr(datasets.cifar, 'check_integrity', lambda *args: True)
    whole = name in ('caltech101', 'sun397', 'eurosat')
    ours, known = [], []
    for split in splits_of(name):
        data = READERS[name](unpacked, split)
        names = DIGITS if name == 'flowers102' else data.names
        labels = data.labels.argmax(1) if data.labels.ndim == 2 else data.labels
        part = [(image, names[label]) for image, label in zip(data.images, labels, strict=True)]
        part = [pair for pair in part if pair[1] != 'BACKGROUND_Google']
        ours += part
        if whole and split != splits_of(name)[-1]:
            continue
        images, classes = theirs(name, unpacked, split)
        known = ours if whole else part
        if classes is None:
            assert sorted(str(image) for image in images) == sorted(str(image) for image, _ in known)
        else:
            assert pairs(*zip(*known, strict=True)) == pairs(images, classes)
    assert known


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
    files = folder / 'files'
    (files / 'imagenet/val').mkdir(parents=True)
    lines = ['ImageId,PredictionString']
    for path, label in zip(nested.images, nested.labels, strict=True):
        shutil.copy(path, files / 'imagenet/val' / f'{path.stem}_{nested.names[label]}.JPEG')
        lines.append(f'{path.stem},{nested.names[label]} 1 2 3 4 {nested.names[label]} 5 6 7 8 ')
    named = READERS['imagenet1k'](files, 'test')
    by_file = {p.stem: nested.names[k] for p, k in zip(nested.images, nested.labels, strict=True)}
    assert {p.stem[:-10]: named.names[k] for p, k in zip(named.images, named.labels, strict=True)} == by_file
    # as on Kaggle
    kaggle = folder / 'kaggle/imagenet'
    (kaggle / 'ILSVRC/Data/CLS-LOC/val').mkdir(parents=True)
    for path in nested.images:
        shutil.copy(path, kaggle / 'ILSVRC/Data/CLS-LOC/val')
    (kaggle / 'LOC_val_solution.csv').write_text('\n'.join(lines) + '\n')
    solved = READERS['imagenet1k'](kaggle.parent, 'test')
    assert {p.stem: solved.names[k] for p, k in zip(solved.images, solved.labels, strict=True)} == by_file
    (kaggle / 'LOC_val_solution.csv').write_text('\n'.join(lines[:-1]) + '\n')
    with pytest.raises(DataError, match=r'\.\w+ is not in \S*LOC_val_solution\.csv; restore both'):
        READERS['imagenet1k'](kaggle.parent, 'test')
    (kaggle / 'LOC_val_solution.csv').write_text('ImageId,PredictionString\na,strawberry 1 2 3 4\n')
    with pytest.raises(DataError, match=r"line 2: 'strawberry' is no WordNet id"):
        READERS['imagenet1k'](kaggle.parent, 'test')
    (folder / 'imagenet/val/strawberry').mkdir()
    with pytest.raises(DataError, match='strawberry is no WordNet id'):
        READERS['imagenet1k'](folder, 'test')


def test_cars_and_chest_images_as_kaggle_has_them(copy, tmp_path):
    folder = copy('stanford_cars')
    cars = folder / 'stanford_cars'
    before = {split: READERS['stanford_cars'](folder, split) for split in ('train', 'test')}
    for name in ('cars_train', 'cars_test', 'devkit'):
        outer = cars / ('car_devkit' if name == 'devkit' else f'{name}_')
        outer.mkdir()
        (cars / name).rename(outer / name)
        if name != 'devkit':
            outer.rename(cars / name)
    for split, data in before.items():
        again = READERS['stanford_cars'](folder, split)
        assert np.array_equal(again.labels, data.labels) and all(path.is_file() for path in again.images)
        assert [path.name for path in again.images] == [path.name for path in data.images]
    folder = copy('chestx')
    whole = READERS['chestx'](folder, 'all')
    for number, path in enumerate(sorted((folder / 'chestx/images').iterdir())):
        apart = folder / f'chestx/images_{1 + number % 12:03d}/images'
        apart.mkdir(parents=True, exist_ok=True)
        path.rename(apart / path.name)
    (folder / 'chestx/images').rmdir()
    again = READERS['chestx'](folder, 'all')
    assert [path.name for path in again.images] == [path.name for path in whole.images]
    assert all(path.is_file() for path in again.images) and np.array_equal(again.labels, whole.labels)


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
        (
            'flowers102',
            'flowers-102',
            lambda f: (f / 'setid.mat').write_bytes(b'MATLAB 5'),
            'is no MATLAB file of version 5',
        ),
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
