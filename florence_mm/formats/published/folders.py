"""Published sets whose classes are folders: Food-101, SUN397, DTD, Caltech-101, EuroSAT and PlantVillage."""

import hashlib
from pathlib import Path, PurePosixPath

import numpy as np

from florence_mm.errors import DataError, shown
from florence_mm.utils.text_files import read_lines

from .listing import LabelledImages, check_split, class_folders, first_place, index_of, list_folders

CALTECH_SHOTS = 30


def _from_lists(
    files: list[Path], folder: Path, names: list[str], class_of: dict[str, int], levels: int, suffix: str = ''
) -> LabelledImages:
    """Images that lists name as ``CLASS/FILE``; the class has ``levels`` folders, None for all but the last part."""
    images, labels = [], []
    for file in files:
        for number, line in enumerate(read_lines(file, 'the path of an image a line'), 1):
            path = PurePosixPath(line.lstrip('/'))
            if len(path.parts) < 2 or '..' in path.parts:
                raise DataError(f'{file}, line {number}: {shown(line)} is no CLASS/FILE; restore it as published')
            owner = '/'.join(path.parts[:levels] if levels else path.parts[:-1])
            labels.append(index_of(owner, class_of, f'{file}, line {number}'))
            images.append(folder / (str(path) + suffix))
    return LabelledImages(images, np.array(labels, dtype=np.int64), tuple(names), files[0])


def read_food101(data_root: Path, split: str) -> LabelledImages:
    """Read Food-101 (``food-101``); splits ``train`` and ``test``."""
    check_split(split, ('train', 'test'))
    root = data_root / 'food-101'
    names = sorted(read_lines(root / 'meta/classes.txt', 'a class a line'))
    indices = {name: index for index, name in enumerate(names)}
    return _from_lists([root / f'meta/{split}.txt'], root / 'images', names, indices, 1, '.jpg')


def read_sun397(data_root: Path, split: str) -> LabelledImages:
    """Read SUN397 (``SUN397`` with the lists of ``Partitions.zip`` in it), the first of its ten partitions."""
    check_split(split, ('train', 'test'))
    root = data_root / 'SUN397'
    folders = [line.strip('/') for line in read_lines(root / 'ClassName.txt', 'a class a line')]
    indices = {folder: index for index, folder in enumerate(folders)}
    lists = {'train': 'Training_01.txt', 'test': 'Testing_01.txt'}
    # the first folder is the letter that a class begins with
    names = [folder.partition('/')[2].replace('/', ' ') or folder for folder in folders]
    return _from_lists([root / lists[split]], root, names, indices, 0)


def read_dtd(data_root: Path, split: str) -> LabelledImages:
    """Read the Describable Textures Dataset (``dtd``, or torchvision's ``dtd/dtd``), the first of its ten splits."""
    check_split(split, ('train', 'val', 'test'))
    root = first_place(data_root / 'dtd/labels', data_root / 'dtd/dtd/labels').parent
    names = class_folders(root / 'images', 'a folder a texture')
    indices = {name: index for index, name in enumerate(names)}
    return _from_lists([root / f'labels/{split}1.txt'], root / 'images', names, indices, 1)


def read_caltech101(data_root: Path, split: str) -> LabelledImages:
    """Read Caltech-101 (``101_ObjectCategories`` in ``caltech-101`` or torchvision's ``caltech101``), 102 classes.

    One of them is the background.

    The set has no published split. CLIP's (arXiv 2103.00020, table 9) has 30 images a class, 3,060, for training and
    all 6,085 others for testing; which, it does not say. Here those 30 of a class are chosen whose name
    ``CLASS/FILE`` has the smallest SHA-256.
    """
    check_split(split, ('train', 'test'))
    folder = '101_ObjectCategories'
    root = first_place(data_root / 'caltech-101' / folder, data_root / 'caltech101' / folder)
    names = class_folders(root, 'a folder a class')
    files, labels = list_folders(root, names)
    digests = [hashlib.sha256(f'{file.parent.name}/{file.name}'.encode()).digest() for file in files]
    train = np.zeros(len(files), dtype=bool)
    for index in range(len(names)):
        of_class = np.flatnonzero(labels == index).tolist()
        train[sorted(of_class, key=digests.__getitem__)[:CALTECH_SHOTS]] = True
    chosen = np.flatnonzero(train if split == 'train' else ~train)
    return LabelledImages([files[i] for i in chosen], labels[chosen], tuple(names), root)


def read_eurosat(data_root: Path, split: str = 'all') -> LabelledImages:
    """Read EuroSAT's RGB images (``eurosat/2750``), which have no split: ``all``."""
    return _whole(data_root / 'eurosat/2750', split, 'a folder a kind of land')


def read_crop_disease(data_root: Path, split: str = 'all') -> LabelledImages:
    """Read the training folder of PlantVillage (``plant-disease/dataset/train``), which CD-FSL uses whole: ``all``."""
    return _whole(data_root / 'plant-disease/dataset/train', split, 'a folder a plant and disease')


def _whole(root: Path, split: str, what: str) -> LabelledImages:
    check_split(split, ('all',))
    names = class_folders(root, what)
    files, labels = list_folders(root, names)
    return LabelledImages(files, labels, tuple(names), root)
