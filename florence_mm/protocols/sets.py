"""The classification sets of the paper's tables 1, 2 and 4: sources, official sizes, classes, metric."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from florence_mm.errors import DataError, UsageError, shown
from florence_mm.evaluation.functional import (
    mean_average_precision,
    per_class_accuracy,
    target_ranks,
    topk_accuracy,
)
from florence_mm.formats.published import READERS, LabelledImages
from florence_mm.language.prompts import get_class_names, get_templates

from .base import OFFICIAL, OR_PARTIAL, PRESENT, DataSource

TOP1, MEAN_PER_CLASS, MEAN_AP = 'top1', 'mean_per_class', 'mAP'


@dataclass(frozen=True)
class ClassificationSet:
    """Published set of labelled images.

    Args:
        name: its name, as in ``food101``.
        sources: layouts in which it may be there, the first being told if none is.
        sizes: official number of images of each split, or of those that its table lists
            (:attr:`LabelledImages.listed`); a set with another number is refused. Empty: any.
        classes: class names of the prompts; none for a set whose classes are never prompted.
        templates: prompts of a class with one ``{}``.
        metric: key of its figure: ``top1``, ``mean_per_class``, or ``mAP``, the mean over the classes of VOC 2007's
            11-point average precision.
        named: whether the files name the classes, so that their order can be compared with that of ``classes``.
        allow_partial: take what is there of a set that is not complete; :func:`part_of` says how much it is.
        reader: name in :data:`florence_mm.formats.published.READERS`; empty: that of the set.
        folder: folder below the data root in which the layout is.
    """

    name: str
    sources: tuple[DataSource, ...]
    sizes: tuple[tuple[str, int], ...] = ()
    classes: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    metric: str = TOP1
    named: bool = True
    allow_partial: bool = False
    reader: str = ''
    folder: str = ''

    def missing(self, data_root: str | Path) -> str | None:
        """Say in one sentence what to download and where to put it; None if the data are there."""
        told = [source.missing(data_root) for source in self.sources]
        return None if None in told else told[0]

    def reads(self, data_root: str | Path) -> list[Path]:
        """List the files and folders of the layout that is there."""
        found = next((source for source in self.sources if source.missing(data_root) is None), self.sources[0])
        return found.paths(data_root)

    def load(self, data_root: str | Path, *splits: str) -> LabelledImages:
        """Read one split, or several together, with labels in the order of ``classes``.

        Raises:
            DataError: files are missing or damaged, or the set is not complete and ``allow_partial`` is off.
        """
        told = self.missing(data_root)
        if told is not None:
            raise DataError(told)
        parts = [self._load(Path(data_root), split) for split in splits]
        if len(parts) == 1:
            return parts[0]
        arrays = isinstance(parts[0].images, np.ndarray)
        images = np.concatenate([p.images for p in parts]) if arrays else [i for p in parts for i in p.images]
        pairs = [_share(part) for part in parts]
        whole = None if all(part.part is None for part in parts) else tuple(map(sum, zip(*pairs, strict=True)))
        return replace(parts[0], images=images, labels=np.concatenate([p.labels for p in parts]), part=whole)

    def _load(self, data_root: Path, split: str) -> LabelledImages:
        data = self._there(READERS[self.reader or self.name](data_root / self.folder, split))
        official, number = dict(self.sizes).get(split), len(data) if data.listed is None else data.listed
        if official is not None and number < official and self.allow_partial:
            missing = 0 if data.listed is None or data.part is None else data.part[1] - data.part[0]
            data = replace(data, part=(number - missing, official))
        elif official is not None and number != official:
            what = f'has {number} images of the {split} split of {self.name}' if data.listed is None else ''
            raise DataError(
                f'{data.source} {what or f"lists {number} images"}, officially {official}; '
                'restore the set as published' + (OR_PARTIAL if number < official else '')
            )
        if not len(data):
            raise DataError(f'{data.source} has no image of the {split} split of {self.name}; unpack the archives')
        return self._in_order(data) if self.classes else data

    def _there(self, data: LabelledImages) -> LabelledImages:
        """Leave out the files that are not there, if a partial set is allowed."""
        if isinstance(data.images, np.ndarray):
            return data
        _require_once(data)
        there = np.array([path.is_file() for path in data.images], dtype=bool)
        if there.all():
            return data
        if not self.allow_partial:
            first = data.images[int(np.argmin(there))]
            raise DataError(
                f'{data.source} lists {len(there)} images of {self.name}, of which {int((~there).sum())} are not '
                f'there, such as {first}; unpack the archives again{OR_PARTIAL}'
            )
        images = [path for path, kept in zip(data.images, there, strict=True) if kept]
        return replace(data, images=images, labels=data.labels[there], part=(len(images), len(there)))

    def _in_order(self, data: LabelledImages) -> LabelledImages:
        """Put labels in the order of the prompts' classes: by name where all names agree, else by position."""
        ours, theirs = [_plain(name) for name in self.classes], [_plain(name) for name in data.names]
        some = self.allow_partial and set(theirs) < set(ours)  # folders of some classes are not there
        if len(ours) != len(theirs) and not some:
            raise DataError(
                f'{data.source} has {len(theirs)} classes, and {self.name} has {len(ours)}; restore it as published'
            )
        if some or sorted(ours) == sorted(theirs) and len(set(ours)) == len(ours):
            place = {name: index for index, name in enumerate(ours)}
            order = np.array([place[name] for name in theirs])
        else:
            order = np.arange(len(ours))
            agreeing = sum(a == b for a, b in zip(ours, theirs, strict=True))
            if self.named and 2 * agreeing < len(ours):
                first = next(i for i in order if ours[i] != theirs[i])
                raise DataError(
                    f'{data.source} has other classes than {self.name}: {shown(data.names[first])} where '
                    f'{shown(self.classes[first])} was expected, and others; restore it as published'
                )
        if data.labels.ndim == 1:
            return replace(data, labels=order[data.labels], names=self.classes)
        labels = np.zeros((len(data), len(ours)), dtype=data.labels.dtype)  # a class without its list is not judged
        labels[:, order] = data.labels
        return replace(data, labels=labels, names=self.classes)

    def figures(self, scores: Tensor, labels: Tensor) -> dict[str, float]:
        """Compute the figures of scores ``(N, K)`` for labels ``(N,)`` or, for mAP, ``(N, K)``, from 0 to 1.

        Raises:
            UsageError: a score is NaN.
        """
        if wrong := int(scores.isnan().any(1).sum()):
            raise UsageError(
                f'the model gives scores on {self.name} that are no numbers for {wrong} of {len(scores)} images; take '
                'an earlier checkpoint of its training'
            )
        if self.metric == MEAN_AP:
            return {MEAN_AP: mean_average_precision(scores, labels)}
        ranks = target_ranks(scores, labels)
        accuracy, counts = per_class_accuracy(ranks, labels, scores.shape[1])
        top5 = {'top5': topk_accuracy(ranks, 5)} if scores.shape[1] > 5 else {}
        return {TOP1: topk_accuracy(ranks, 1), **top5, MEAN_PER_CLASS: accuracy[counts > 0].mean().item()}


def part_of(*splits: LabelledImages) -> dict[str, float]:
    """Tell in figures how much of a set was there: ``present_images`` of ``official_images``; none if it was whole."""
    if all(data.part is None for data in splits):
        return {}
    present, official = (sum(numbers) for numbers in zip(*map(_share, splits), strict=True))
    return {PRESENT: present, OFFICIAL: official}


def _share(data: LabelledImages) -> tuple[int, int]:
    return data.part or (len(data), len(data))


def _require_once(data: LabelledImages) -> None:
    """Check that no image is listed twice, as it would count twice."""
    seen: set[Path] = set()
    for path in data.images:
        if path in seen:
            raise DataError(f'{data.source} lists {path} twice; restore it as published')
        seen.add(path)


def _plain(name: str) -> str:
    return re.sub(r'[\W_]+', '', name.casefold())


def labels_of(data: LabelledImages) -> Tensor:
    """Return the labels as a tensor."""
    return torch.from_numpy(np.ascontiguousarray(data.labels))


def _clip_set(
    name: str, title: str, page: str, layout: Sequence[str | tuple[str, ...]], metric: str = TOP1, **sizes: int
) -> ClassificationSet:
    layouts = [(entry,) if isinstance(entry, str) else entry for entry in layout]
    return ClassificationSet(
        name,
        tuple(DataSource(title, page, entry) for entry in layouts),
        tuple(sizes.items()),
        tuple(get_class_names(name)),
        tuple(get_templates(name)),
        metric,
        named=name not in ('flowers102', 'imagenet1k'),
    )


_CAR_LABELS = 'cars_test_annos_withlabels.mat'
_VGG = 'https://www.robots.ox.ac.uk/~vgg/data'
#: Sets of tables 1 and 2 in their order; sizes are those of CLIP's table 9, by published split.
CLIP_PROTOCOL = (
    _clip_set('food101', 'Food-101', 'https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/',
              [('food-101/meta', 'food-101/images')], train=75_750, test=25_250),
    _clip_set('cifar10', 'CIFAR-10', 'https://www.cs.toronto.edu/~kriz/cifar.html',
              ['cifar-10-batches-py', 'cifar-10-batches-bin'], train=50_000, test=10_000),
    _clip_set('cifar100', 'CIFAR-100', 'https://www.cs.toronto.edu/~kriz/cifar.html',
              ['cifar-100-python', 'cifar-100-binary'], train=50_000, test=10_000),
    _clip_set('sun397', 'SUN397 (with the lists of Partitions.zip in its folder)',
              'https://vision.princeton.edu/projects/2010/SUN/',
              [('SUN397/ClassName.txt', 'SUN397/Training_01.txt', 'SUN397/Testing_01.txt')],
              train=19_850, test=19_850),
    _clip_set('stanford_cars', 'Stanford Cars',
              'https://www.kaggle.com/datasets/jessicali9530/stanford-cars-dataset (a copy, as the official page is '
              'gone), and the labels of its test images, cars_test_annos_withlabels.mat, beside it',
              [tuple(f'stanford_cars/{name}' for name in (devkit, 'cars_train', 'cars_test', labels))
               for devkit, labels in (('devkit', _CAR_LABELS), ('devkit', f'devkit/{_CAR_LABELS}'),
                                      ('car_devkit/devkit', _CAR_LABELS))],
              train=8_144, test=8_041),
    _clip_set('fgvc_aircraft', 'FGVC Aircraft (2013b)', f'{_VGG}/fgvc-aircraft/',
              ['fgvc-aircraft-2013b/data'], MEAN_PER_CLASS, train=3_334, val=3_333, test=3_333),
    _clip_set('voc2007', 'PASCAL VOC 2007', 'http://host.robots.ox.ac.uk/pascal/VOC/voc2007/',
              [('VOCdevkit/VOC2007/ImageSets/Main', 'VOCdevkit/VOC2007/JPEGImages')], MEAN_AP,
              train=2_501, val=2_510, test=4_952),
    _clip_set('dtd', 'Describable Textures Dataset', f'{_VGG}/dtd/',
              [('dtd/images', 'dtd/labels'), ('dtd/dtd/images', 'dtd/dtd/labels')],
              train=1_880, val=1_880, test=1_880),
    _clip_set('oxford_pets', 'Oxford-IIIT Pet', f'{_VGG}/pets/',
              [('oxford-iiit-pet/images', 'oxford-iiit-pet/annotations')], MEAN_PER_CLASS, train=3_680, test=3_669),
    _clip_set('caltech101', 'Caltech-101', 'https://data.caltech.edu/records/mzrjq-6wc02',
              ['caltech-101/101_ObjectCategories', 'caltech101/101_ObjectCategories'], MEAN_PER_CLASS,
              train=3_060, test=6_085),
    _clip_set('flowers102', 'Oxford Flowers-102', f'{_VGG}/flowers/102/',
              [('flowers-102/jpg', 'flowers-102/imagelabels.mat', 'flowers-102/setid.mat')], MEAN_PER_CLASS,
              train=1_020, val=1_020, test=6_149),
)  # fmt: skip


def imagenet1k() -> ClassificationSet:
    """Return ImageNet-1K, whose names are read from open_clip."""
    page = 'https://image-net.org/download-images.php'
    layouts = ['imagenet/val', ('imagenet/ILSVRC/Data/CLS-LOC/val', 'imagenet/LOC_val_solution.csv')]
    return _clip_set('imagenet1k', 'ImageNet-1K (ILSVRC2012) validation', page, layouts, test=50_000)


def _few_shot_set(name: str, title: str, page: str, *layouts: tuple[str, ...], size: int) -> ClassificationSet:
    sources = tuple(DataSource(title, page, layout) for layout in layouts)
    return ClassificationSet(name, sources, (('all', size),), metric=TOP1)


#: Sets of table 4; sizes are those of the CD-FSL benchmark (arXiv 1912.07200), all images that it draws from. Of
#: ChestX-ray8 it is that of the table, which lists 112,120 images (arXiv 1705.02315); those with one of the seven
#: findings alone are counted by the readers.
CD_FSL = (
    _few_shot_set('isic', 'ISIC 2018, task 3', 'https://challenge.isic-archive.com/data/#2018',
                  ('isic2018/ISIC2018_Task3_Training_Input', 'isic2018/ISIC2018_Task3_Training_GroundTruth'),
                  size=10_015),
    _few_shot_set('eurosat', 'EuroSAT (RGB)', 'https://github.com/phelber/EuroSAT', ('eurosat/2750',), size=27_000),
    _few_shot_set('crop_disease', 'Plant Disease', 'https://www.kaggle.com/saroz014/plant-disease',
                  ('plant-disease/dataset/train',), size=43_456),
    _few_shot_set('chestx', 'ChestX-ray8', 'https://www.kaggle.com/nih-chest-xrays/data',
                  *(('chestx/Data_Entry_2017.csv', images) for images in ('chestx/images', 'chestx/images_001/images')),
                  size=112_120),
)  # fmt: skip
