"""Let mmengine's ``ConcatDataset`` say in what its data sets differ: it names neither the key nor the values."""

from collections.abc import Sequence
from reprlib import Repr
from types import ModuleType
from typing import Any

import numpy as np

from .gap import Gap

_SHORT = Repr()
_SHORT.maxstring = 120


def _names_no_key() -> bool:
    from mmengine.dataset import BaseDataset
    from mmengine.dataset.dataset_wrapper import ConcatDataset

    parts = [BaseDataset(metainfo={'number_of_things': number}, lazy_init=True) for number in (1, 2)]
    try:
        ConcatDataset(parts, lazy_init=True)
    except ValueError as error:
        return 'number_of_things' not in str(error)
    return False


def _patch(module: ModuleType) -> None:
    initialise = module.ConcatDataset.__init__

    def named(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            initialise(self, *args, **kwargs)
        except (TypeError, ValueError):
            found = _difference(getattr(self, 'datasets', ()), getattr(self, 'ignore_keys', ()))
            if found is None:
                raise
            key, first, number, other = found
            advice = (
                'test each by itself, or merge their files with tools/dataset_converters/merge_detection.py'
                if key == 'ann_file'
                else f'give both the same, or ignore_keys=[{key!r}]'
            )
            raise ValueError(
                f'ConcatDataset cannot join data sets whose metainfo[{key!r}] differs, {first} in data set 0 and '
                f'{other} in data set {number}; {advice}'
            ) from None

    module.ConcatDataset.__init__ = named


def _difference(datasets: Sequence[Any], ignored: Sequence[str]) -> tuple[str, str, int, str] | None:
    """The first key in which a data set differs from the first, with the number of that and both values."""
    infos = [dataset.metainfo for dataset in datasets]
    for number, info in enumerate(infos[1:], 1):
        for key in dict.fromkeys([*infos[0], *info]):
            if key in ignored:
                continue
            if key not in info or key not in infos[0] or not _equal(info[key], infos[0][key]):
                first, other = (_SHORT.repr(part[key]) if key in part else 'missing' for part in (infos[0], info))
                return key, first, number, other
    return None


def _equal(a: Any, b: Any) -> bool:
    return type(a) is type(b) and (np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b)


GAP = Gap(
    name='mmengine ConcatDataset',
    package='mmengine',
    why='ConcatDataset of two data sets that differ in metainfo ends in an error that names nothing',
    needed=_names_no_key,
    patch=_patch,
    after='mmengine.dataset.dataset_wrapper',
)
