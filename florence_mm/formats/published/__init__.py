"""Labelled images of public data sets, each read in the layout in which it is published.

Not here: what protocols do with them, prompts and official sizes (``protocols``, ``language``).
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from .cifar import read_cifar
from .folders import (
    read_caltech101,
    read_crop_disease,
    read_dtd,
    read_eurosat,
    read_food101,
    read_sun397,
)
from .listing import LabelledImages
from .lists import read_chestx, read_fgvc_aircraft, read_isic, read_oxford_pets, read_voc2007
from .matlab import read_flowers102, read_imagenet, read_stanford_cars

#: Readers by name of the set: from the folder of all data sets and a split to images with labels.
READERS: dict[str, Callable[[Path, str], LabelledImages]] = {
    'food101': read_food101,
    'cifar10': partial(read_cifar, classes=10),
    'cifar100': partial(read_cifar, classes=100),
    'sun397': read_sun397,
    'stanford_cars': read_stanford_cars,
    'fgvc_aircraft': read_fgvc_aircraft,
    'voc2007': read_voc2007,
    'dtd': read_dtd,
    'oxford_pets': read_oxford_pets,
    'caltech101': read_caltech101,
    'flowers102': read_flowers102,
    'imagenet1k': read_imagenet,
    'isic': read_isic,
    'eurosat': read_eurosat,
    'crop_disease': read_crop_disease,
    'chestx': read_chestx,
}

__all__ = ['READERS', 'LabelledImages']
