"""Mixture of data sets in given proportions."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from florence_mm.errors import shown
from florence_mm.registry import DATASETS
from florence_mm.utils.numbers import is_finite, is_whole

from .arguments import require, require_flags
from .order_parts import OrderPart, order_parts

_LARGEST_EPOCH = 10**12  # a sampler holds a number for each sample


@DATASETS.register_module()
class WeightedMixture(Dataset):
    """Mix several data sets, each with its share of an epoch.

    An epoch is ``epoch_size`` samples, divided by weight (largest remainders round up). A data set with ``n`` rows and
    ``m`` samples per epoch spreads the samples evenly over its rows: if ``m >= n``, every row occurs ``m // n`` times
    or once more. If ``m < n``, the rows are divided into ``m`` intervals and numpy's global generator draws one row of
    each, so that all rows occur over many epochs; a seeded sampler makes the draw repeatable. Samples are ordered by
    data set; shuffling is left to the sampler.

    ``metainfo`` has the keys on which all data sets that have them agree. ``classes`` is missing if they differ, as
    ``gt_label`` then means different things; labels of texts (``label_key``) always agree.

    Args:
        datasets (Sequence[dict]): ``dict(dataset=..., weight=...)``: a data set's config or a data set, and
            its share, relative to the others.
        epoch_size (int | None): Samples per epoch. None: the fewest with which every row of every data set occurs.
        metainfo (dict | None): Overrides the merged ``metainfo``.
        lazy_init (bool): Do not read the data sets before :meth:`full_init`.

    Raises:
        ValueError: no data sets, a weight that is not positive, or an epoch too small for one of them.
    """

    def __init__(
        self,
        datasets: Sequence[Mapping],
        epoch_size: int | None = None,
        metainfo: Mapping | None = None,
        lazy_init: bool = False,
    ) -> None:
        right = isinstance(datasets, Sequence) and not isinstance(datasets, str) and len(datasets) > 0
        require('datasets', datasets, right, 'a list with at least one data set')
        self.weights = []
        for i, entry in enumerate(datasets):
            if not isinstance(entry, Mapping) or set(entry) != {'dataset', 'weight'}:
                raise ValueError(
                    f'entry {i} of WeightedMixture is {shown(entry)}; expected dict(dataset=..., weight=...)'
                )
            dataset, weight = entry['dataset'], entry['weight']
            right = (
                hasattr(dataset, '__getitem__') and hasattr(dataset, '__len__') and not isinstance(dataset, Sequence)
            )
            right = right and (not isinstance(dataset, Mapping) or 'type' in dataset)
            require(f'datasets[{i}].dataset', dataset, right, 'a data set or its config')
            require(f'datasets[{i}].weight', weight, is_finite(weight) and weight > 0, 'a positive number')
            self.weights.append(float(weight))
        right = epoch_size is None or is_whole(epoch_size) and epoch_size > 0
        require('epoch_size', epoch_size, right, 'a number of samples, or None')
        require_flags(lazy_init=lazy_init)
        require('metainfo', metainfo, metainfo is None or isinstance(metainfo, Mapping), 'a dict')
        self.datasets = [
            DATASETS.build(entry['dataset']) if isinstance(entry['dataset'], Mapping) else entry['dataset']
            for entry in datasets
        ]
        self._epoch_size = epoch_size
        self._metainfo_override = dict(metainfo or {})
        self._fully_initialized = False
        if not lazy_init:
            self.full_init()

    def full_init(self) -> None:
        """Read the data sets and divide the epoch among them."""
        if self._fully_initialized:
            return
        for dataset in self.datasets:
            if hasattr(dataset, 'full_init'):
                dataset.full_init()
        self.sizes = [len(dataset) for dataset in self.datasets]
        if 0 in self.sizes:
            raise ValueError(f'data set {self.sizes.index(0)} of the mixture has no samples; leave it out')
        weights = _fractions(self.weights)
        total = sum(weights)
        size = self._epoch_size
        if size is None:
            # the data set that needs the longest epoch for all of its rows decides
            size = max(ceil(rows * total / weight) for rows, weight in zip(self.sizes, weights, strict=True))
        if size > _LARGEST_EPOCH:
            raise ValueError(
                f'an epoch of the weights {self.weights} has more than {_LARGEST_EPOCH:.0e} samples; give a smaller '
                'epoch_size, or other weights'
            )
        self.shares = share_out(size, self.weights)
        if min(self.shares) < 1:
            i = self.shares.index(min(self.shares))
            raise ValueError(f'an epoch of {size} samples leaves none for data set {i} of weight {self.weights[i]:g}')
        self._ends = np.cumsum(self.shares).tolist()
        self._metainfo = {**_common([getattr(dataset, 'metainfo', {}) for dataset in self.datasets])}
        self._metainfo.update(self._metainfo_override)
        self._fully_initialized = True

    @property
    def metainfo(self) -> dict:
        """The entries on which all data sets agree, updated by the constructor's ``metainfo``."""
        self.full_init()
        return dict(self._metainfo)

    @property
    def num_skipped(self) -> int:
        """Number of rows of all data sets skipped so far."""
        return sum(getattr(dataset, 'num_skipped', 0) for dataset in self.datasets)

    def __len__(self) -> int:
        """Number of samples per epoch."""
        self.full_init()
        return self._ends[-1]

    def order_parts(self) -> list[OrderPart]:
        """Return the ranges of all data sets, with the ends of their shards in samples of the epoch."""
        self.full_init()
        parts = []
        for dataset, rows, share in zip(self.datasets, self.sizes, self.shares, strict=True):
            inner = order_parts(dataset)
            if all(part.ends is None for part in inner):
                parts.append(OrderPart(share))
                continue
            # sample s is one of the rows from s * rows // share on
            ends = [0] + [-(-int(end) * share // rows) for end in np.cumsum([part.size for part in inner])]
            firsts = np.cumsum([0] + [part.size for part in inner])
            for part, first, start, end in zip(inner, firsts, ends, ends[1:], strict=False):
                shards = None if part.ends is None else -((-(part.ends + first) * share) // rows) - start
                parts.append(OrderPart(end - start, shards, part.block, part.fetch))
        return parts

    def locate(self, idx: int) -> tuple[int, int]:
        """Return data set and row of sample ``idx``; the row is drawn if an epoch does not hold all rows."""
        if not -len(self) <= idx < len(self):
            raise IndexError(f'index {idx} is outside the {len(self)} samples of the mixture')
        idx = int(idx) % len(self)
        which = bisect_right(self._ends, idx)
        slot = idx - (self._ends[which - 1] if which else 0)
        rows, share = self.sizes[which], self.shares[which]
        first = slot * rows // share
        after = (slot + 1) * rows // share
        return which, int(np.random.randint(first, after)) if after - first > 1 else first

    def get_data_info(self, idx: int) -> dict:
        """Return the sample that enters the pipeline of its data set."""
        which, row = self.locate(idx)
        return self.datasets[which].get_data_info(row)

    def __getitem__(self, idx: int) -> Any:
        """Return sample ``idx`` of the epoch."""
        which, row = self.locate(idx)
        return self.datasets[which][row]


def share_out(total: int, weights: Sequence[float]) -> list[int]:
    """Divide ``total`` into whole numbers in proportion to ``weights``; the largest remainders round up.

    ``share_out(10, [1, 1, 1])`` is ``[4, 3, 3]``.
    """
    weights = _fractions(weights)
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [floor(share) for share in exact]
    by_remainder = sorted(range(len(weights)), key=lambda i: shares[i] - exact[i])
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares


def _fractions(weights: Sequence[float]) -> list[Fraction]:
    # exact decimal values: 0.1 is a tenth, so that shares do not depend on rounding errors
    return [Fraction(repr(float(weight))) for weight in weights]


def _common(infos: Sequence[Mapping]) -> dict:
    common = {}
    for key in {key: None for info in infos for key in info}:
        values = [info[key] for info in infos if key in info]
        if all(_equal(value, values[0]) for value in values[1:]):
            common[key] = values[0]
    return common


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    return type(a) is type(b) and np.array_equal(a, b)
