"""The embedded digits in the layout of each published classification set, a few images a class.

They stand in for the sets where those are not at hand: files, lists and tables are what the archives hold, the images
are digits, and classes are named "zero" to "nine" where the layout names them.
"""

import io
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import scipy.io

from florence_mm.language.prompts import get_class_names

from .digits import load_digits_split, render_digit
from .generated import write_generated

Files = Iterator[tuple[str, bytes]]
_SIZE = 32
_CHESTX = ('Atelectasis', 'Cardiomegaly', 'Effusion', 'Infiltration', 'Mass', 'Nodule', 'Pneumothorax')
_ISIC = ('MEL', 'NV', 'BCC', 'AKIEC', 'BKL', 'DF', 'VASC')


class _Split:
    """Digits of one split: images ``(N, 32, 32)`` uint8, labels ``(N,)`` in turn, and the number of each in its class.

    Args:
        name: ``'train'``, ``'val'`` or ``'test'``; validation digits are training digits that ``'train'`` has not.
        per_class: images of each class, or as many as there are.
        skip: images of each class to leave out at the beginning.
    """

    def __init__(self, name: str, per_class: int, skip: int = 0) -> None:
        images, labels = load_digits_split('test' if name == 'test' else 'train')
        of_class = [np.flatnonzero(labels == digit)[skip : skip + per_class] for digit in range(10)]
        most = max(len(chosen) for chosen in of_class)
        order = [chosen[i] for i in range(most) for chosen in of_class if i < len(chosen)]
        self.images = np.stack([render_digit(images[i], _SIZE) for i in order])
        self.labels = labels[order]
        self.numbers = [i for i in range(most) for chosen in of_class if i < len(chosen)]
        self.name, self.per_class = name, per_class

    def names(self, pattern: str = '{split}{number:04d}') -> list[str]:
        """Names of the files by class, split and number in the class."""
        return [
            pattern.format(name=_NAMES[label], label=label, split=self.name, number=number, index=index)
            for index, (label, number) in enumerate(zip(self.labels, self.numbers, strict=True), 1)
        ]

    def jpegs(self, names: list[str], root: str, suffix: str = '.jpg') -> Files:
        """The images as files."""
        for name, image in zip(names, self.images, strict=True):
            yield f'{root}/{name}{suffix}', cv2.imencode(suffix, image)[1].tobytes()


_NAMES = get_class_names('digits')
_BY_CLASS = '{name}/{split}{number:04d}'


def _lines(lines: list[str]) -> bytes:
    return ''.join(f'{line}\n' for line in lines).encode()


def _matlab(**values: object) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, values)
    # without the date that the first text holds
    return b'MATLAB 5.0 MAT-file'.ljust(116) + file.getvalue()[116:]


def _food101(train: _Split, val: _Split, test: _Split) -> Files:
    yield 'food-101/meta/classes.txt', _lines(sorted(_NAMES))
    for split in (train, test):
        names = split.names(_BY_CLASS)
        yield f'food-101/meta/{split.name}.txt', _lines(names)
        table = {name: [line for line in names if line.startswith(f'{name}/')] for name in _NAMES}
        yield f'food-101/meta/{split.name}.json', json.dumps(table).encode()
        yield from split.jpegs(names, 'food-101/images')


def _cifar(folder: str, train_files: list[str], test_file: str, key: str, meta: tuple[str, str]) -> Callable:
    def write(train: _Split, val: _Split, test: _Split) -> Files:
        yield f'{folder}/{meta[0]}', pickle.dumps({meta[1].encode(): [name.encode() for name in _NAMES]}, 2)
        for split, files in ((train, train_files), (test, [test_file])):
            pixels = np.repeat(split.images[:, None], 3, axis=1).reshape(len(split.images), -1)
            parts = np.array_split(np.arange(len(pixels)), len(files))
            for file, part in zip(files, parts, strict=True):
                content = {b'data': pixels[part], key.encode(): split.labels[part].tolist()}
                yield f'{folder}/{file}', pickle.dumps(content, 2)

    return write


def _sun397(train: _Split, val: _Split, test: _Split) -> Files:
    folders = sorted(f'/{name[0]}/{name}' for name in _NAMES)
    yield 'SUN397/ClassName.txt', _lines(folders)
    for split, file in ((train, 'Training_01.txt'), (test, 'Testing_01.txt')):
        names = [f'/{name[0]}/{name}' for name in split.names(_BY_CLASS)]
        yield f'SUN397/{file}', _lines([f'{name}.jpg' for name in names])
        yield from split.jpegs([name[1:] for name in names], 'SUN397')


def _stanford_cars(train: _Split, val: _Split, test: _Split) -> Files:
    yield 'stanford_cars/devkit/cars_meta.mat', _matlab(class_names=np.array(_NAMES, dtype=object))
    places = {'train': 'devkit/cars_train_annos.mat', 'test': 'cars_test_annos_withlabels.mat'}
    kinds = [*((side, 'O') for side in ('bbox_x1', 'bbox_y1', 'bbox_x2', 'bbox_y2')), ('class', 'O'), ('fname', 'O')]
    for split in (train, test):
        names = split.names('{index:05d}')
        rows = [(1, 1, _SIZE, _SIZE, int(label) + 1, f'{name}.jpg')
                for label, name in zip(split.labels, names, strict=True)]  # fmt: skip
        yield f'stanford_cars/{places[split.name]}', _matlab(annotations=np.array([rows], dtype=kinds))
        yield from split.jpegs(names, f'stanford_cars/cars_{split.name}')


def _fgvc_aircraft(train: _Split, val: _Split, test: _Split) -> Files:
    root = 'fgvc-aircraft-2013b/data'
    yield f'{root}/variants.txt', _lines(_NAMES)
    for first, split in enumerate((train, val, test)):
        names = split.names(f'{first}{{index:06d}}')
        lines = [f'{name} {_NAMES[label]}' for name, label in zip(names, split.labels, strict=True)]
        yield f'{root}/images_variant_{split.name}.txt', _lines(lines)
        yield from split.jpegs(names, f'{root}/images')


def _voc2007(train: _Split, val: _Split, test: _Split) -> Files:
    root = 'VOCdevkit/VOC2007'
    for first, split in enumerate((train, val, test)):
        names = split.names(f'{first}{{index:05d}}')
        for digit, digit_name in enumerate(_NAMES):
            # every seventh image may show the digit before its own too, which nobody is to judge
            truths = [
                1 if label == digit else 0 if index % 7 == 0 and label == digit + 1 else -1
                for index, label in enumerate(split.labels)
            ]
            lines = [f'{name} {truth:2d}' for name, truth in zip(names, truths, strict=True)]
            yield f'{root}/ImageSets/Main/{digit_name}_{split.name}.txt', _lines(lines)
        yield f'{root}/ImageSets/Main/{split.name}.txt', _lines(names)
        yield from split.jpegs(names, f'{root}/JPEGImages')


def _dtd(train: _Split, val: _Split, test: _Split) -> Files:
    for split in (train, val, test):
        names = split.names(_BY_CLASS)
        yield f'dtd/labels/{split.name}1.txt', _lines([f'{name}.jpg' for name in names])
        yield from split.jpegs(names, 'dtd/images')


def _oxford_pets(train: _Split, val: _Split, test: _Split) -> Files:
    root = 'oxford-iiit-pet'
    for split, file in ((train, 'trainval.txt'), (test, 'test.txt')):
        names = split.names('{name}_{split}{number}')
        rows = zip(names, split.labels, split.numbers, strict=True)
        yield f'{root}/annotations/{file}', _lines([f'{name} {label + 1} 1 {n + 1}' for name, label, n in rows])
        yield from split.jpegs(names, f'{root}/images')


def _caltech101(train: _Split, val: _Split, test: _Split) -> Files:
    # 30 images a class are for training by the protocol's own rule; test digits alone, so that none was trained on
    whole = _Split('test', 30 + test.per_class)
    yield from whole.jpegs(whole.names(_BY_CLASS), 'caltech-101/101_ObjectCategories')


def _flowers102(train: _Split, val: _Split, test: _Split) -> Files:
    root, first, ids = 'flowers-102', 1, {}
    for split, key in ((train, 'trnid'), (val, 'valid'), (test, 'tstid')):
        ids[key] = np.arange(first, first + len(split.labels))
        yield from split.jpegs([f'image_{i:05d}' for i in ids[key]], f'{root}/jpg')
        first += len(split.labels)
    yield f'{root}/setid.mat', _matlab(**ids)
    yield f'{root}/imagelabels.mat', _matlab(labels=np.concatenate([s.labels for s in (train, val, test)]) + 1)


def _imagenet1k(train: _Split, val: _Split, test: _Split) -> Files:
    root = 'imagenet/ILSVRC2012_devkit_t12/data'
    # numbers of the classes in another order than their ids, and a synset above them, as in the published file
    rows = [(10 - digit, f'n{digit:08d}', _NAMES[digit], 0) for digit in range(10)] + [(11, 'n00000010', 'digit', 10)]
    kinds = [(name, 'O') for name in ('ILSVRC2012_ID', 'WNID', 'words', 'num_children')]
    yield f'{root}/meta.mat', _matlab(synsets=np.array(rows, dtype=kinds)[:, None])
    yield f'{root}/ILSVRC2012_validation_ground_truth.txt', _lines([str(10 - label) for label in test.labels])
    yield from test.jpegs(test.names('ILSVRC2012_val_{index:08d}'), 'imagenet/val', '.jpeg')


def _eurosat(train: _Split, val: _Split, test: _Split) -> Files:
    yield from test.jpegs(test.names('{name}/{name}_{number}'), 'eurosat/2750')


def _crop_disease(train: _Split, val: _Split, test: _Split) -> Files:
    yield from test.jpegs(test.names('{name}___{name}/{number}'), 'plant-disease/dataset/train')


def _isic(train: _Split, val: _Split, test: _Split) -> Files:
    table, few = 'ISIC2018_Task3_Training_GroundTruth', test.labels < len(_ISIC)
    names = test.names('ISIC_{index:07d}')
    rows = [
        f'{name},' + ','.join(f'{float(label == k)}' for k in range(len(_ISIC)))
        for name, label, kept in zip(names, test.labels, few, strict=True) if kept
    ]  # fmt: skip
    yield f'isic2018/{table}/{table}.csv', _lines([','.join(('image', *_ISIC)), *rows])
    yield from test.jpegs(names, 'isic2018/ISIC2018_Task3_Training_Input')


def _chestx(train: _Split, val: _Split, test: _Split) -> Files:
    names = test.names('{index:08d}_000')
    # images without a finding and with several are listed as well, and are not used
    findings = (*_CHESTX, 'No Finding', 'Mass|Nodule', 'Hernia')
    rows = [f'{name}.png,{findings[label]},{0}' for name, label in zip(names, test.labels, strict=True)]
    yield 'chestx/Data_Entry_2017.csv', _lines(['Image Index,Finding Labels,Follow-up #', *rows])
    yield from test.jpegs(names, 'chestx/images', '.png')


_WRITERS: dict[str, Callable[[_Split, _Split, _Split], Files]] = {
    'food101': _food101,
    'cifar10': _cifar(
        'cifar-10-batches-py', [f'data_batch_{i}' for i in range(1, 6)], 'test_batch', 'labels',
        ('batches.meta', 'label_names'),
    ),
    'cifar100': _cifar('cifar-100-python', ['train'], 'test', 'fine_labels', ('meta', 'fine_label_names')),
    'sun397': _sun397,
    'stanford_cars': _stanford_cars,
    'fgvc_aircraft': _fgvc_aircraft,
    'voc2007': _voc2007,
    'dtd': _dtd,
    'oxford_pets': _oxford_pets,
    'caltech101': _caltech101,
    'flowers102': _flowers102,
    'imagenet1k': _imagenet1k,
    'isic': _isic,
    'eurosat': _eurosat,
    'crop_disease': _crop_disease,
    'chestx': _chestx,
}  # fmt: skip
#: Sets that can be written.
PUBLISHED = tuple(_WRITERS)


def write_published_digits(
    name: str, data_root: str | Path, train: int = 12, val: int = 6, test: int = 10
) -> tuple[int, int]:
    """Write the digits in the layout of a published set.

    A second run only repairs. Sets of CD-FSL, which have no splits, get the test digits alone.

    Args:
        name: one of :data:`PUBLISHED`.
        data_root: folder of all data sets.
        train: training images of each digit.
        val: validation images of each digit, in sets that are published with a validation split.
        test: test images of each digit.

    Returns:
        number of files written, and number of files in all.

    Raises:
        ValueError: there is no such set.
    """
    if name not in _WRITERS:
        raise ValueError(f'name={name!r} must be one of {", ".join(PUBLISHED)}')
    splits = _Split('train', train), _Split('val', val, skip=train), _Split('test', test)
    files = list(_WRITERS[name](*splits))
    options = {'set': name, 'train': train, 'val': val, 'test': test}
    record = f'.{name}-digits.json'
    return write_generated(Path(data_root), record, options, files, len(files), f'writing {name} of digits')
