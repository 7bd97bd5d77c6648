"""Data set of image-text pairs in webdataset shards, read by their index."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.logging import print_log

from florence_mm.errors import DataError, UsageError
from florence_mm.formats.open_shards import OpenShards
from florence_mm.formats.shard_cache import ShardCache
from florence_mm.formats.shard_store import Store
from florence_mm.formats.shards import SET_FILE, ShardSet, parse_set, parse_text, read_set
from florence_mm.registry import DATASETS
from florence_mm.utils.numbers import is_finite, is_whole

from .arguments import check_indices, require, require_flags
from .base import ImageTextDataset
from .order_parts import OrderPart
from .reading import readable_rows
from .skipping import SkipCounter

_CACHE = {'folder', 'max_gb', 'retries', 'seconds', 'options'}
_BLOCK = 16


@DATASETS.register_module()
class ImageTextShards(ImageTextDataset):
    """Image-text pairs from a set of webdataset tars with an ``index.json``, as ``tools/curate.py`` writes them.

    Samples are those of :class:`ImageTextManifest`: a member ``KEY.jpg`` (or another format) is the image,
    ``KEY.json``, ``KEY.txt`` or ``KEY.cls`` gives the text, its label and flags, or the class, see
    :func:`florence_mm.formats.shards.parse_text`. Any sample is one read at its place in the tar, so a sampler shuffles
    all of them and a run resumes exactly. Memory does not grow with the number of samples, except that ``skip_bad``
    keeps a byte for each, which the workers of a process share.

    A set in a store (``s3://``, ``gs://`` … of fsspec) is read through a local folder of whole shards, of which each
    machine fetches every one once in an epoch; training then draws samples in blocks of ``block`` shards. A shard that
    cannot be fetched whole ends the run: no sample is left out in silence.

    Args:
        data_root (str): Folder or address of the set.
        cache (dict | None): For a store: ``dict(folder=..., max_gb=..., retries=5, seconds=60, options={})``: the local
            folder, the bound of its size (two blocks must fit), attempts after the first that failed, the longest time
            in which a transfer may make no progress, and options of the fsspec file system. None: the set is local.
        drop_augmented (bool): Leave out samples marked ``augmented``, as in the paper's second stage; the index knows
            them.
        block (int | None): Shards that are read at a time, in random order. It is part of the order of samples, so a
            resumed run keeps it. None: all for a local set, 16 for a store.
        classes, skip_bad, pipeline, test_mode, metainfo, indices, lazy_init: see :class:`ImageTextDataset`; a member
            that names a class needs ``classes``.

    Raises:
        FileNotFoundError: there is no set.
        DataError: its index is damaged, or a sample that may not be skipped is unusable.
        UsageError: a shard is missing, cut off or cannot be fetched.
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        data_root: str,
        cache: Mapping[str, Any] | None = None,
        block: int | None = None,
        drop_augmented: bool = False,
        classes: str | Sequence[str] | None = None,
        skip_bad: dict | None = None,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        metainfo: Mapping | None = None,
        indices: int | Sequence[int] | None = None,
        lazy_init: bool = False,
    ) -> None:
        right = block is None or is_whole(block) and block > 0
        require('block', block, right, 'a number of shards, or None')
        require('data_root', data_root, isinstance(data_root, (str, os.PathLike)) and str(data_root), 'a set of shards')
        require_flags(drop_augmented=drop_augmented)
        self.block, self.drop_augmented = block, drop_augmented
        self._cache = _build_cache(os.fspath(data_root), cache)
        self._folder = f'{os.fspath(data_root).rstrip("/")}/'
        super().__init__(
            data_root=data_root,
            classes=classes,
            skip_bad=skip_bad,
            pipeline=pipeline,
            test_mode=test_mode,
            metainfo=metainfo,
            indices=indices,
            lazy_init=lazy_init,
        )
        if any(isinstance(step, LoadImageFromFile) for step in self.pipeline.transforms):
            raise UsageError(
                'LoadImageFromFile reads files, and images of ImageTextShards are in tars; take florence_mm.LoadImage'
            )

    def _join_prefix(self) -> None:
        """Join nothing: there are no paths, and mmengine does not know all stores of fsspec."""

    def full_init(self) -> None:
        """Read the list of shards, and in test mode with ``skip_bad`` every image."""
        if self._fully_initialized:
            return
        self.shards = self._read_set()
        self._open = OpenShards(self.shards, self._cache)
        counts = self.shards.samples - self.shards.augmented * self.drop_augmented
        self._ends = np.cumsum(counts)
        self._first, self._size, self._rows = 0, int(self._ends[-1]), None
        if self._size == 0:
            raise DataError(f'{self.location} has augmented samples only; take drop_augmented=False')
        if self.drop_augmented:
            print_log(f'{self.location}: left {self.shards.total - self._size} augmented samples out', 'current')
        if self.class_names.given:
            self._metainfo['classes'] = tuple(self.class_names.names)
        self._skips = SkipCounter(self.location, **self.skip_bad) if self.skip_bad else None
        if self._skips:
            self._skips.finish_lines(self._size)
            if self.test_mode:
                rows = readable_rows(range(self._size), self._sample, self.pipeline.transforms, self._skips)
                self._rows, self._size = np.array(rows, np.int64), len(rows)
                self._metainfo['num_skipped'] = self._skips.total
        self._take(self._indices)
        self._fully_initialized = True

    def _take(self, indices: int | Sequence[int] | None) -> None:
        check_indices(indices, self._size, self.location)
        if isinstance(indices, Sequence):
            rows = np.array(indices, np.int64) % self._size
            self._rows, self._size = rows if self._rows is None else self._rows[rows], len(rows)
        elif indices is not None:
            self._first = max(self._size + indices, 0) if indices < 0 else 0
            self._size = min(self._size, abs(indices))

    def _read_set(self) -> ShardSet:
        if self._cache is None:
            return read_set(self.data_root)
        root, name = self._cache.store.root, self._cache.store.address(SET_FILE)
        shards = parse_set(self._cache.store.read(SET_FILE), root)
        block = min(self.block or _BLOCK, len(shards))
        needed = 2 * int(np.sort(shards.bytes)[-block:].sum())
        if needed > self._cache.max_bytes:
            raise UsageError(
                f'{name}: two blocks of {block} shards have up to {needed / 1e9:.3g} GB, and cache.max_gb is '
                f'{self._cache.max_bytes / 1e9:.3g}; raise it, or take a smaller block'
            )
        return shards

    @property
    def location(self) -> str:
        """Where the samples come from, for messages."""
        return str(self.data_root)

    def __len__(self) -> int:
        if not self._fully_initialized:
            self.full_init()
        return self._size

    def order_parts(self) -> list[OrderPart]:
        """Tell samplers the ends of the shards, if these are read in blocks."""
        size = len(self)
        if self._rows is not None or self.block is None and self._cache is None:
            return [OrderPart(size)]
        ends = np.clip(self._ends - self._first, 0, size)
        fetch = None if self._cache is None else self._fetch_ahead
        return [OrderPart(size, ends, self.block or _BLOCK, fetch)]

    def _fetch_ahead(self, numbers: Sequence[int]) -> None:
        self._cache.fetch_ahead([self.shards[number] for number in numbers])

    def get_data_info(self, idx: int) -> dict:
        """Return the sample that enters the pipeline, with the file of its image as ``img_bytes``."""
        idx, size = int(idx), len(self)
        if not -size <= idx < size:
            raise IndexError(f'index {idx} is outside the {size} samples of {self.location}')
        idx %= size
        sample = self._sample(idx + self._first if self._rows is None else int(self._rows[idx + self._first]))
        sample['sample_idx'] = idx
        return sample

    def _sample(self, row: int) -> dict:
        which = int(np.searchsorted(self._ends, row, side='right'))
        number = row - (int(self._ends[which - 1]) if which else 0)
        shard, number, place, image, text = self._open.read(which, number, self.drop_augmented)
        name = f'{self._folder}{shard.name}'
        source = f'{name}, sample {number}'
        if place.image is None or place.text is None:
            missing = 'image' if place.image is None else 'text or class'
            raise DataError(f'{source}: it has no {missing}; its members are in the tar at byte {place.first}')
        content = parse_text(place.text, text, source)
        sample = {
            'img_path': f'{name}#{number}',
            'img_bytes': image,
            'source': source,
            'augmented': content.get('augmented', False),
            'is_class': 'text' not in content,
        }
        if 'class' in content:
            try:
                index = self._class_index(content['class'])
            except ValueError as error:
                raise DataError(f'{source}: {error}') from None
            sample.update(gt_label=index, class_name=self.class_names.names[index])
        if 'text' in content:
            sample.update(text=content['text'], texts=[content['text']])
        else:
            sample['text'] = sample['class_name']
        sample.update((key, content[key]) for key in ('label', 'extra') if key in content)
        return sample

    def _class_index(self, value: Any) -> int:
        if not self.class_names.given:  # collecting them would read all samples
            raise ValueError('it has a class, but the data set has no `classes`; give the names')
        return self.class_names.index(value)


def _build_cache(root: str, cache: Mapping[str, Any] | None) -> ShardCache | None:
    remote = '://' in root
    right = cache is None or isinstance(cache, Mapping) and {'folder', 'max_gb'} <= set(cache) <= _CACHE
    require('cache', cache, right, f'None or a dict with folder, max_gb and perhaps {", ".join(sorted(_CACHE)[2:])}')
    if remote != (cache is not None):
        wrong = (
            'is in a store, and needs cache=dict(folder=..., max_gb=...)' if remote else 'is local and takes no cache'
        )
        raise UsageError(f'the set of shards {root} {wrong}')
    if cache is None:
        return None
    max_gb, retries, seconds = cache['max_gb'], cache.get('retries', 5), cache.get('seconds', 60)
    options = cache.get('options', {})
    require('cache.folder', cache['folder'], isinstance(cache['folder'], (str, os.PathLike)), 'a path')
    require('cache.max_gb', max_gb, is_finite(max_gb) and max_gb > 0, 'a number of gigabytes above 0')
    require('cache.retries', retries, is_whole(retries) and retries >= 0, 'a number of attempts from 0')
    require('cache.seconds', seconds, is_finite(seconds) and seconds > 0, 'a number of seconds above 0')
    require('cache.options', options, isinstance(options, Mapping), 'a dict')
    return ShardCache(Store(root, dict(options), retries, seconds), cache['folder'], int(max_gb * 1e9))
