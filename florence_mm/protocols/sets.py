"""The classification sets of the paper's tables 1, 2 and 4: sources, official sizes, classes, metric."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from florence_mm.errors import DataError, shown
from florence_mm.evaluation.functional import (
    mean_average_precision,
    per_class_accuracy,
    target_ranks,
    topk_accuracy,
)
from florence_mm.formats.published import READERS, LabelledImages
from florence_mm.language.prompts import get_class_names, get_templates

from .base import DataSource

TOP1, MEAN_PER_CLASS, MEAN_AP = 'top1', 'mean_per_class', 'mAP'


@dataclass(frozen=True)
class ClassificationSet:
    """Published set of labelled images.

    Args:
        name: its name, as in ``food101``.
        sources: layouts in which it may be there, the first being told if none is.
        sizes: official number of images of each split; a set with another number is refused. Empty: any.
        classes: class names of the prompts; none for a set whose classes are never prompted.
        templates: prompts of a class with one ``{}``.
        metric: key of its figure: ``top1``, ``mean_per_class``, or ``mAP``, the mean over the classes of VOC 2007's
            11-point average precision.
        named: whether the files name the classes, so that their order can be compared with that of ``classes``.
        allow_partial: take what is there of a set that is not complete.
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
        return replace(parts[0], images=images, labels=np.concatenate([part.labels for part in parts]))

    def _load(self, data_root: Path, split: str) -> LabelledImages:
        data = READERS[self.reader or self.name](data_root / self.folder, split)
        if not isinstance(data.images, np.ndarray):
            there = np.array([path.is_file() for path in data.images], dtype=bool)
            if not there.all() and not self.allow_partial:
                first = data.images[int(np.argmin(there))]
                raise DataError(
                    f'{data.source} lists {len(there)} images of {self.name}, of which {int((~there).sum())} are not '
                    f'there, such as {first}; unpack the archives again, or allow a partial set'
                )
            images = [path for path, kept in zip(data.images, there, strict=True) if kept]
            data = replace(data, images=images, labels=data.labels[there])
        official = dict(self.sizes).get(split)
        if official is not None and len(data) != official and not (self.allow_partial and len(data) < official):
            raise DataError(
                f'{data.source} has {len(data)} images of the {split} split of {self.name}, officially {official}; '
                'restore the set as published' + (', or allow a partial set' if len(data) < official else '')
            )
        if not len(data):
            raise DataError(f'{data.source} has no image of the {split} split of {self.name}; unpack the archives')
        return self._in_order(data) if self.classes else data

    def _in_order(self, data: LabelledImages) -> LabelledImages:
        """Put labels in the order of the prompts' classes: by name where all names agree, else by position."""
        ours, theirs = [_plain(name) for name in self.classes], [_plain(name) for name in data.names]
        if len(ours) != len(theirs):
            raise DataError(
                f'{data.source} has {len(theirs)} classes, and {self.name} has {len(ours)}; restore it as published'
            )
        if sorted(ours) == sorted(theirs) and len(set(ours)) == len(ours):
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
        labels = np.empty_like(data.labels)
        labels[:, order] = data.labels
        return replace(data, labels=labels, names=self.classes)

    def figures(self, scores: Tensor, labels: Tensor) -> dict[str, float]:
        """Compute the figures of scores ``(N, K)`` for labels ``(N,)`` or, for mAP, ``(N, K)``, from 0 to 1."""
        if self.metric == MEAN_AP:
            return {MEAN_AP: mean_average_precision(scores, labels)}
        ranks = target_ranks(scores, labels)
        accuracy, counts = per_class_accuracy(ranks, labels, scores.shape[1])
        top5 = {'top5': topk_accuracy(ranks, 5)} if scores.shape[1] > 5 else {}
        return {TOP1: topk_accuracy(ranks, 1), **top5, MEAN_PER_CLASS: accuracy[counts > 0].mean().item()}


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
    _clip_set('stanford_cars', 'Stanford Cars', 'https://ai.stanford.edu/~jkrause/cars/car_dataset.html',
              [('stanford_cars/devkit', 'stanford_cars/cars_train', 'stanford_cars/cars_test')],
              train=8_144, test=8_041),
    _clip_set('fgvc_aircraft', 'FGVC Aircraft (2013b)', f'{_VGG}/fgvc-aircraft/',
              ['fgvc-aircraft-2013b/data'], MEAN_PER_CLASS, train=3_334, val=3_333, test=3_333),
    _clip_set('voc2007', 'PASCAL VOC 2007', 'http://host.robots.ox.ac.uk/pascal/VOC/voc2007/',
              [('VOCdevkit/VOC2007/ImageSets/Main', 'VOCdevkit/VOC2007/JPEGImages')], MEAN_AP,
              train=2_501, val=2_510, test=4_952),
    _clip_set('dtd', 'Describable Textures Dataset', f'{_VGG}/dtd/', [('dtd/images', 'dtd/labels')],
              train=1_880, val=1_880, test=1_880),
    _clip_set('oxford_pets', 'Oxford-IIIT Pet', f'{_VGG}/pets/',
              [('oxford-iiit-pet/images', 'oxford-iiit-pet/annotations')], MEAN_PER_CLASS, train=3_680, test=3_669),
    _clip_set('caltech101', 'Caltech-101', 'https://data.caltech.edu/records/mzrjq-6wc02',
              ['caltech-101/101_ObjectCategories'], MEAN_PER_CLASS, train=3_060, test=6_085),
    _clip_set('flowers102', 'Oxford Flowers-102', f'{_VGG}/flowers/102/',
              [('flowers-102/jpg', 'flowers-102/imagelabels.mat', 'flowers-102/setid.mat')], MEAN_PER_CLASS,
              train=1_020, val=1_020, test=6_149),
)  # fmt: skip


def imagenet1k() -> ClassificationSet:
    """Return ImageNet-1K, whose names are read from open_clip."""
    page = 'https://image-net.org/download-images.php'
    return _clip_set('imagenet1k', 'ImageNet-1K (ILSVRC2012) validation', page, ['imagenet/val'], test=50_000)


def _few_shot_set(name: str, title: str, page: str, *layout: str, **sizes: int) -> ClassificationSet:
    return ClassificationSet(name, (DataSource(title, page, layout),), tuple(sizes.items()), metric=TOP1)


#: Sets of table 4; sizes are those of the CD-FSL benchmark (arXiv 1912.07200), all images that it draws from. That of
#: ChestX-ray8 depends on the edition of its table.
CD_FSL = (
    _few_shot_set('isic', 'ISIC 2018, task 3', 'https://challenge.isic-archive.com/data/#2018',
                  'isic2018/ISIC2018_Task3_Training_Input', 'isic2018/ISIC2018_Task3_Training_GroundTruth',
                  all=10_015),
    _few_shot_set('eurosat', 'EuroSAT (RGB)', 'https://github.com/phelber/EuroSAT', 'eurosat/2750', all=27_000),
    _few_shot_set('crop_disease', 'Plant Disease', 'https://www.kaggle.com/saroz014/plant-disease',
                  'plant-disease/dataset/train', all=43_456),
    _few_shot_set('chestx', 'ChestX-ray8', 'https://www.kaggle.com/nih-chest-xrays/data',
                  'chestx/Data_Entry_2017.csv', 'chestx/images',),
)  # fmt: skip
