"""Published sets with text lists: FGVC Aircraft, Oxford-IIIT Pet, PASCAL VOC 2007, ISIC 2018 and ChestX-ray8."""

from pathlib import Path

import numpy as np

from florence_mm.errors import DataError
from florence_mm.utils.text_files import read_lines

from .listing import LabelledImages, check_split, csv_rows, index_of, require_folder, table_rows, whole_number

ISIC_CLASSES = ('MEL', 'NV', 'BCC', 'AKIEC', 'BKL', 'DF', 'VASC')
# the classes of CD-FSL (arXiv 1912.07200; github.com/IBM/cdfsl-benchmark): images with one finding, without the rarest
CHESTX_CLASSES = ('Atelectasis', 'Cardiomegaly', 'Effusion', 'Infiltration', 'Mass', 'Nodule', 'Pneumothorax')


def read_fgvc_aircraft(data_root: Path, split: str) -> LabelledImages:
    """Read FGVC Aircraft (``fgvc-aircraft-2013b``) with its 100 variants as classes."""
    check_split(split, ('train', 'val', 'test'))
    root = data_root / 'fgvc-aircraft-2013b/data'
    names = read_lines(root / 'variants.txt', 'a variant a line')
    indices = {name: index for index, name in enumerate(names)}
    file = root / f'images_variant_{split}.txt'
    rows = table_rows(file, 2, 'the number of an image and its variant')
    labels = [index_of(variant, indices, f'{file}, image {image}') for image, variant in rows]
    return LabelledImages(
        [root / f'images/{image}.jpg' for image, _ in rows], np.array(labels, dtype=np.int64), tuple(names), file
    )


def read_oxford_pets(data_root: Path, split: str) -> LabelledImages:
    """Read Oxford-IIIT Pet (``oxford-iiit-pet`` with the folders ``images`` and ``annotations``), 37 breeds."""
    check_split(split, ('train', 'test'))
    root = data_root / 'oxford-iiit-pet'
    file = root / f'annotations/{"trainval" if split == "train" else "test"}.txt'
    images, labels, names = [], [], {}
    for image, class_id, _ in table_rows(file, 3, 'an image, the number of its breed, species and number in it'):
        index = whole_number(class_id, f'{file}, image {image}', 1, 10_000) - 1
        breed = image.rpartition('_')[0].replace('_', ' ')
        if names.setdefault(index, breed) != breed:
            raise DataError(f'{file}, image {image}: breed {index + 1} is {names[index]!r} elsewhere; restore the file')
        images.append(root / f'images/{image}.jpg')
        labels.append(index)
    if sorted(names) != list(range(len(names))):
        raise DataError(f'{file} lacks some of the numbers 1 to {max(names) + 1} of breeds; restore it as published')
    ordered = tuple(names[index] for index in range(len(names)))
    return LabelledImages(images, np.array(labels, dtype=np.int64), ordered, file)


def read_voc2007(data_root: Path, split: str) -> LabelledImages:
    """Read PASCAL VOC 2007 (``VOCdevkit/VOC2007``) with several classes an image.

    ``ImageSets/Main/CLASS_SPLIT.txt`` says for each image 1, -1, or 0 where the class is seen only in objects that are
    difficult, which the devkit's evaluation passes over.
    """
    check_split(split, ('train', 'val', 'test'))
    root = data_root / 'VOCdevkit/VOC2007'
    lists = root / 'ImageSets/Main'
    files = sorted(require_folder(lists, 'a list a class').glob(f'[!.]*_{split}.txt'))
    if not files:
        raise DataError(f'{lists} has no CLASS_{split}.txt; unpack the archives of the set there')
    images: list[str] = []
    columns = []
    for file in files:
        rows = table_rows(file, 2, 'an image and 1, 0 or -1')
        listed = [image for image, _ in rows]
        if columns and listed != images:
            raise DataError(f'{file} lists other images than {files[0].name}; restore it as published')
        images = listed
        columns.append([whole_number(truth, f'{file}, image {image}', -1, 1) for image, truth in rows])
    names = tuple(file.stem.rpartition('_')[0] for file in files)
    paths = [root / f'JPEGImages/{image}.jpg' for image in images]
    return LabelledImages(paths, np.array(columns, dtype=np.int8).T, names, lists)


def read_isic(data_root: Path, split: str = 'all') -> LabelledImages:
    """Read the training set of ISIC 2018, task 3 (``isic2018``), which CD-FSL uses whole: ``all``."""
    check_split(split, ('all',))
    root = data_root / 'isic2018'
    table = 'ISIC2018_Task3_Training_GroundTruth'
    file = root / table / f'{table}.csv'
    images, labels = [], []
    for line, row in csv_rows(file, ('image', *ISIC_CLASSES)):
        ones = [index for index, name in enumerate(ISIC_CLASSES) if str(row[name]).strip() in ('1', '1.0')]
        if len(ones) != 1:
            raise DataError(f'{file}, line {line}: {len(ones)} classes are 1; expected one')
        images.append(root / f'ISIC2018_Task3_Training_Input/{row["image"]}.jpg')
        labels.append(ones[0])
    return LabelledImages(images, np.array(labels, dtype=np.int64), ISIC_CLASSES, file)


def read_chestx(data_root: Path, split: str = 'all') -> LabelledImages:
    """Read ChestX-ray8 (``chestx``: ``Data_Entry_2017.csv`` and ``images`` of all archives): ``all``.

    The archives may also lie apart as on Kaggle, ``images_001/images`` to ``images_012/images``. As in CD-FSL: images
    with exactly one finding, which is one of its seven classes.
    """
    check_split(split, ('all',))
    file = data_root / 'chestx/Data_Entry_2017.csv'
    whole = file.parent / 'images'
    parts = [] if whole.is_dir() else sorted(file.parent.glob('images_[0-9]*/images'))
    places = {image.name: image for folder in parts for image in folder.iterdir()}
    images, labels, listed = [], [], 0
    for _, row in csv_rows(file, ('Image Index', 'Finding Labels')):
        listed += 1
        if row['Finding Labels'] in CHESTX_CLASSES:
            name = row['Image Index']
            images.append(places.get(name, whole / name))
            labels.append(CHESTX_CLASSES.index(row['Finding Labels']))
    return LabelledImages(images, np.array(labels, dtype=np.int64), CHESTX_CLASSES, file, listed)
