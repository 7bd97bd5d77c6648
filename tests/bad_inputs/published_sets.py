"""Bad inputs: public classification sets in their published layouts, and results of protocols that were kept."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from florence_mm.corpora.published_digits import write_published_digits
from florence_mm.protocols.base import percent
from florence_mm.protocols.classification import FOLDER, with_digits
from florence_mm.protocols.kept import read_result, result_key, write_result
from florence_mm.protocols.sets import CD_FSL, CLIP_PROTOCOL, ClassificationSet, imagenet1k
from florence_mm.utils.text_files import read_text

from .case import BadInput

AREA = 'published sets and kept results'
_SETS = {data.name: data for data in (*CLIP_PROTOCOL, imagenet1k(), *CD_FSL)}
_ALL = ('isic', 'eurosat', 'crop_disease', 'chestx')  # sets without splits
_TRUTH = 'imagenet/ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt'


def _damaged(name: str, file: str, change: Callable[[Path], Any] | bytes | str | None) -> Callable[[Path], Any]:
    """Change a file of a set, and load the set; returns the number of its images.

    Args:
        name: the set.
        file: path from the folder of all sets; of several that match, the first.
        change: is given the file; or its new content; None: delete it.
    """

    def run(folder: Path) -> Any:
        write_published_digits(name, folder / FOLDER, train=2, val=2, test=2)
        path = next((folder / FOLDER).glob(file))
        if callable(change):
            change(path)
        else:
            path.unlink()
            if change is not None:
                path.write_bytes(change if isinstance(change, bytes) else change.encode())
        return len(_digits(name).load(folder, 'all' if name in _ALL else 'test'))

    return run


def _digits(name: str) -> ClassificationSet:
    return with_digits(_SETS[name], test=2)


def _edit(change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    def edit(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return edit


def _instead(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Put something else in place of a file."""

    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


_FIRST_TWICE = _edit(lambda data: data.split(b'\n')[0] + b'\n' + data)
_LAST_TWICE = _edit(lambda data: data + data.rstrip(b'\n').split(b'\n')[-1] + b'\n')
_AS_ON_WINDOWS = _edit(lambda data: b'\xef\xbb\xbf' + data.replace(b'\n', b'\r\n'))
_CUT = _edit(lambda data: data[: len(data) // 2])
_HUGE = _instead(lambda path: (path.touch(), os.truncate(path, 2**30)))


_ONE_LABEL = {b'data': np.zeros((2, 3072), np.uint8), b'labels': [1]}


class _Call:
    def __reduce__(self) -> Any:
        return Path.touch, (Path('called'),)


#: words: set, file, change -> what the refusal says, or how many images there are
_SET_ROWS: dict[str, tuple] = {
    'Food-101 as lists of Windows': ('food101', 'food-101/meta/test.txt', _AS_ON_WINDOWS, 20),
    'Food-101 with an image twice': ('food101', 'food-101/meta/test.txt', _FIRST_TWICE, 'test0000.jpg twice'),
    'Food-101 with the list of another set': ('food101', 'food-101/meta/test.txt', 'pizza/1\n', "'pizza' is none of"),
    'Food-101 with a class twice': ('food101', 'food-101/meta/classes.txt', _FIRST_TWICE, 'has 11 classes'),
    'Food-101 without a class': ('food101', 'food-101/meta/classes.txt', _CUT, 'is none of'),
    'Food-101 with an empty list': ('food101', 'food-101/meta/test.txt', '', 'is empty'),
    'Food-101 with a list in UTF-16': (
        'food101', 'food-101/meta/test.txt', _edit(lambda data: data.decode().encode('utf-16')), 'is not UTF-8 text'),
    'Food-101 with a list of 1 GiB': ('food101', 'food-101/meta/test.txt', _HUGE, 'has 1073741824 bytes'),
    'Food-101 with an image that is a folder': (
        'food101', 'food-101/images/zero/test0000.jpg', _instead(Path.mkdir), 'of which 1 are not there'),
    'Food-101 with an image that is a pipe': (
        'food101', 'food-101/images/zero/test0000.jpg', _instead(os.mkfifo), 'of which 1 are not there'),
    'SUN397 with an image twice': ('sun397', 'SUN397/Testing_01.txt', _LAST_TWICE, 'twice; restore it as published'),
    'CIFAR-10 with one label fewer': (
        'cifar10', 'cifar-10-batches-py/test_batch', pickle.dumps(_ONE_LABEL, 2),
        '(2, 3072) and 1 labels'),
    'CIFAR-10 with a pickle that calls': (
        'cifar10', 'cifar-10-batches-py/test_batch', pickle.dumps(_Call()), 'which no published file does'),
    'CIFAR-10 cut off': ('cifar10', 'cifar-10-batches-py/test_batch', _CUT, 'is not a file of CIFAR'),
    'CIFAR-100 with a web page': ('cifar100', 'cifar-100-python/test', '<!DOCTYPE html>', 'is not a file of CIFAR'),
    'Cars with a byte of a size changed': (
        'stanford_cars', 'stanford_cars/devkit/cars_meta.mat', _edit(lambda data: data[:132] + b'\xff' + data[133:]),
        'its sizes do not agree'),
    'Cars with a MATLAB file cut off': (
        'stanford_cars', 'stanford_cars/cars_test_annos_withlabels.mat', _CUT, 'its sizes do not agree'),
    'Flowers with line ends of Windows in a MATLAB file': (
        'flowers102', 'flowers-102/imagelabels.mat', _edit(lambda data: data.replace(b'\n', b'\r\n')),
        'its sizes do not agree'),
    'Flowers with HDF5 in place of MATLAB 5': (
        'flowers102', 'flowers-102/setid.mat', b'MATLAB 7.3'.ljust(126) + b'\x02IM', 'version 5 to 7.2'),
    'Flowers with a pipe': ('flowers102', 'flowers-102/setid.mat', _instead(os.mkfifo), 'is a named pipe'),
    'VOC with two signs before a number': (
        'voc2007', 'VOCdevkit/VOC2007/ImageSets/Main/eight_test.txt', _edit(lambda data: data.replace(b'-1', b'--1')),
        "'--1' must be a whole number"),
    'VOC with a list of other images': (
        'voc2007', 'VOCdevkit/VOC2007/ImageSets/Main/two_test.txt', _LAST_TWICE, 'lists other images than'),
    'VOC without the list of a class': (
        'voc2007', 'VOCdevkit/VOC2007/ImageSets/Main/two_test.txt', None, 'has 9 classes'),
    'Pets with an image twice': ('oxford_pets', 'oxford-iiit-pet/annotations/test.txt', _LAST_TWICE, 'twice'),
    'Aircraft with a variant twice': ('fgvc_aircraft', 'fgvc-*/data/variants.txt', _FIRST_TWICE, 'has 11 classes'),
    'DTD with another file beside the textures': (
        'dtd', 'dtd/images/zero', lambda path: (path.parent / 'Thumbs.db').touch(), 20),
    'Caltech with an empty class': (
        'caltech101', 'caltech-101/101_ObjectCategories/zero', lambda path: (path.parent / 'extra').mkdir(), 'classes'),
    'ImageNet with a line more in the ground truth': ('imagenet1k', _TRUTH, _FIRST_TWICE, 'has 21 lines, and'),
    'ImageNet with a line fewer': ('imagenet1k', _TRUTH, _edit(lambda data: data[:-2]), 'does not number'),
    'ImageNet with a class too many': ('imagenet1k', _TRUTH, _edit(lambda data: b'999\n' + data[2:]), "'999' must be"),
    'EuroSAT with a class renamed': (
        'eurosat', 'eurosat/2750/zero', lambda path: path.rename(path.with_name('naught')), 20),
    'Plant Disease without images': (
        'crop_disease', 'plant-disease/dataset/train', lambda path: (shutil.rmtree(path), path.mkdir()),
        'has no class folders'),
    'ISIC with two classes an image': (
        'isic', 'isic2018/*/*.csv', _edit(lambda data: data.replace(b'0.0', b'1.0', 1)), 'classes are 1; expected one'),
    'ISIC with an image twice': ('isic', 'isic2018/*/*.csv', _LAST_TWICE, 'twice'),
    'ChestX-ray8 without its labels': (
        'chestx', 'chestx/Data_Entry_2017.csv', _edit(lambda data: data.replace(b'Finding Labels', b'Findings')),
        "there is no 'Finding Labels'"),
}  # fmt: skip


class _Measured:
    """A protocol of which one figure is known."""

    name, group, metric, paper = 'zero-shot/digits', 'zero-shot', 'top1', None

    def reads(self, data_root: Path) -> list[Path]:
        """No data decide the figure."""
        return []


def _resumed(change: Callable[[Path], Any], checkpoint: bytes = b'a') -> Callable[[Path], Any]:
    """Keep a result, change its file, and read it again for the same or another checkpoint; returns its percent."""

    def run(folder: Path) -> Any:
        weights, cfg = folder / 'w.pth', Config({'model': {}})
        weights.write_bytes(b'a')
        key = result_key(_Measured(), cfg, weights, folder)
        write_result(folder, key, {'top1': 0.25}, 1.0)
        change(folder / f'result-{key}.json')
        other = folder / 'other.pth'
        other.write_bytes(checkpoint)
        result = read_result(folder, result_key(_Measured(), cfg, other, folder))
        return None if result is None else percent(result['figures'], 'top1')

    return run


def _set(**changes: Any) -> Callable[[Path], Any]:
    return _edit(lambda data: json.dumps({**json.loads(data), **changes}).encode())


def cases() -> list[BadInput]:
    """The inputs."""
    rows = []
    for words, (name, file, change, expected) in _SET_ROWS.items():
        wanted = {'says': expected} if isinstance(expected, str) else {'gives': expected}
        rows.append(BadInput(words, _damaged(name, file, change), **wanted))
    same = lambda path: None  # noqa: E731
    rows += [
        BadInput('a kept result', _resumed(same), gives=25.0),
        BadInput('a result of another checkpoint', _resumed(same, b'b'), gives=None),
        BadInput('a result that was cut off', _resumed(_CUT), gives=None),
        BadInput('a result that is a list', _resumed(_edit(lambda data: b'[]')), gives=None),
        BadInput('a result with another key inside', _resumed(_set(key='0')), gives=None),
        BadInput('a result with a list of figures', _resumed(_set(figures=[1])), gives=None),
        BadInput('a result with a text as figure', _resumed(_set(figures={'top1': 'high'})), gives=None),
        BadInput('a result with True as figure', _resumed(_set(figures={'top1': True})), gives=None),
        BadInput('a result without its time', _resumed(_set(seconds=None)), gives=None),
        BadInput('a result that is a folder', _resumed(_instead(Path.mkdir)), says='Is a directory'),
        BadInput('a text of 1 GiB', _huge_text, says='has 1073741824 bytes, too many for a list'),
    ]
    return rows


def _huge_text(folder: Path) -> Any:
    Path('a.txt').touch()
    os.truncate('a.txt', 2**30)
    return read_text('a.txt', 'names')
