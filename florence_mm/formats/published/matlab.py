"""Published sets with MATLAB files: Stanford Cars, Oxford Flowers-102, and the validation images of ImageNet-1K."""

import re
from pathlib import Path

import numpy as np

from florence_mm.errors import DataError, shown
from florence_mm.utils.text_files import read_lines

from .listing import (
    LabelledImages,
    check_split,
    class_folders,
    csv_rows,
    files_of,
    first_place,
    index_of,
    list_folders,
    read_matlab,
    require_folder,
    whole_number,
    whole_numbers,
)

_WNID = re.compile(r'n\d{8}')
_NAMED = re.compile(r'.*_(n\d{8})')


def read_stanford_cars(data_root: Path, split: str) -> LabelledImages:
    """Read Stanford Cars (``stanford_cars``: ``devkit``, ``cars_train``, ``cars_test``, and the labels of the test).

    The labels of the test images are ``cars_test_annos_withlabels.mat``, beside ``devkit`` or in it. Folders may also
    be as on Kaggle: ``car_devkit/devkit``, ``cars_train/cars_train``, ``cars_test/cars_test``.
    """
    check_split(split, ('train', 'test'))
    root = data_root / 'stanford_cars'
    devkit = first_place(root / 'devkit', root / 'car_devkit/devkit')
    meta = devkit / 'cars_meta.mat'
    names = tuple(str(name) for name in read_matlab(meta, 'class_names')['class_names'])
    file = devkit / 'cars_train_annos.mat'
    if split == 'test':
        file = first_place(root / 'cars_test_annos_withlabels.mat', devkit / 'cars_test_annos_withlabels.mat')
    records = read_matlab(file, 'annotations')['annotations']
    if records.dtype.names is None or not {'class', 'fname'} <= set(records.dtype.names):
        raise DataError(f'{file} has no annotations with class and fname; restore the file as published')
    labels = whole_numbers(np.array(records['class'].tolist()), f'the classes of {file}', 1, len(names)) - 1
    folder = first_place(root / f'cars_{split}/cars_{split}', root / f'cars_{split}')
    images = [folder / Path(str(name)).name for name in records['fname']]
    return LabelledImages(images, labels, names, file)


def read_flowers102(data_root: Path, split: str) -> LabelledImages:
    """Read Oxford Flowers-102 (``flowers-102``: ``jpg``, ``imagelabels.mat``, ``setid.mat``), which names no class."""
    check_split(split, ('train', 'val', 'test'))
    root = data_root / 'flowers-102'
    all_labels = read_matlab(root / 'imagelabels.mat', 'labels')['labels']
    all_labels = whole_numbers(all_labels, f'the labels of {root / "imagelabels.mat"}', 1)
    key = {'train': 'trnid', 'val': 'valid', 'test': 'tstid'}[split]
    file = root / 'setid.mat'
    ids = whole_numbers(read_matlab(file, key)[key], f'{key} of {file}', 1, len(all_labels))
    names = tuple(str(number) for number in range(1, int(all_labels.max(initial=0)) + 1))
    return LabelledImages([root / f'jpg/image_{i:05d}.jpg' for i in ids], all_labels[ids - 1] - 1, names, file)


def read_imagenet(data_root: Path, split: str = 'test') -> LabelledImages:
    """Read the validation images of ImageNet-1K, here the ``test`` split, with WordNet ids as names.

    Their folder is ``imagenet/val``, or Kaggle's ``imagenet/ILSVRC/Data/CLS-LOC/val``. It has a folder a WordNet id, or
    the 50,000 files, whose classes are in their names (``ILSVRC2012_val_00000001_n01751748.JPEG``), in
    ``imagenet/LOC_val_solution.csv`` or in the unpacked ``imagenet/ILSVRC2012_devkit_t12``. Classes are in the order of
    their ids, the usual one.
    """
    check_split(split, ('test',))
    top = data_root / 'imagenet'
    root = require_folder(first_place(top / 'val', top / 'ILSVRC/Data/CLS-LOC/val'), 'the validation images')
    files = files_of(root)
    if not files:
        names = class_folders(root, 'a folder a WordNet id')
        wrong = [name for name in names if not _WNID.fullmatch(name)]
        if wrong:
            raise DataError(f'{root / wrong[0]} is no WordNet id such as n01440764; name the folders as published')
        images, labels = list_folders(root, names)
        return LabelledImages(images, labels, tuple(names), root)
    solution = top / 'LOC_val_solution.csv'
    if all(_NAMED.fullmatch(file.stem) for file in files):
        return _by_ids(files, [file.stem.rpartition('_')[2] for file in files], root)
    if solution.is_file():
        return _by_ids(files, _solved(solution, files), solution)
    return _by_devkit(top / 'ILSVRC2012_devkit_t12/data', root, files)


def _by_ids(files: list[Path], owners: list[str], source: Path) -> LabelledImages:
    names = sorted(set(owners))
    indices = {name: index for index, name in enumerate(names)}
    labels = np.array([indices[owner] for owner in owners], dtype=np.int64)
    return LabelledImages(files, labels, tuple(names), source)


def _solved(file: Path, images: list[Path]) -> list[str]:
    """WordNet ids of images by Kaggle's table, whose cells are ``ID x1 y1 x2 y2`` for each box."""
    found = {}
    for line, row in csv_rows(file, ('ImageId', 'PredictionString')):
        found[row['ImageId']] = owner = row['PredictionString'].split()[0]
        if not _WNID.fullmatch(owner):
            raise DataError(f'{file}, line {line}: {shown(owner)} is no WordNet id; download the file again')
    for image in images:
        if image.stem not in found:
            raise DataError(f'{image} is not in {file}; restore both as published')
    return [found[image.stem] for image in images]


def _by_devkit(devkit: Path, root: Path, files: list[Path]) -> LabelledImages:
    """Images with the classes that the devkit lists by their numbers."""
    synsets = read_matlab(devkit / 'meta.mat', 'synsets')['synsets']
    if synsets.dtype.names is None or not {'ILSVRC2012_ID', 'WNID', 'num_children'} <= set(synsets.dtype.names):
        raise DataError(f'{devkit / "meta.mat"} has no synsets with ILSVRC2012_ID and WNID; restore it as published')
    by_id = {int(row['ILSVRC2012_ID']): str(row['WNID']) for row in synsets if int(row['num_children']) == 0}
    names = sorted(by_id.values())
    indices = {name: index for index, name in enumerate(names)}
    file = devkit / 'ILSVRC2012_validation_ground_truth.txt'
    lines = read_lines(file, 'the number of a class a line')
    numbers = [whole_number(line, f'{file}, line {i}', 1, len(synsets)) for i, line in enumerate(lines, 1)]
    # line i is of ILSVRC2012_val_0000000i.JPEG, whichever of the files are there
    places = [int(file.stem.rpartition('_')[2]) if file.stem.rpartition('_')[2].isdigit() else 0 for file in files]
    if not all(1 <= place <= len(numbers) for place in places):
        raise DataError(f'{root} has images that {file} does not number; restore their names as published')
    # where images 1 to N are there, a line more would give every label to a neighbour
    if len(set(places)) == max(places) != len(numbers):
        raise DataError(f'{file} has {len(numbers)} lines, and {root} has {len(files)} images; restore both')
    labels = [index_of(by_id.get(numbers[place - 1], ''), indices, f'{file}, line {place}') for place in places]
    return LabelledImages(files, np.array(labels, dtype=np.int64), tuple(names), file)
