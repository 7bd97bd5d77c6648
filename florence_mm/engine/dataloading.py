"""Training data loaders that can start at any batch, with samples independent of the number of workers."""

import copy
import time
from collections.abc import Iterator
from typing import Any

from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.registry import DATA_SAMPLERS as ROOT_SAMPLERS
from mmengine.registry import DATASETS as ROOT_DATASETS
from torch.utils.data import DataLoader

from florence_mm.utils.seeded import SeededIndex, seed_everything_for_sample

from .samplers import ResumableSampler, SeededSampler, SkippingBatchSampler


class SeededDataset:
    """Wrapper of any data set that seeds the global generators before each sample whose index carries a seed.

    Attributes are read from and set on the wrapped data set, as hooks of other packages expect.

    Args:
        dataset (Dataset): The data set.
    """

    def __init__(self, dataset: Any) -> None:
        object.__setattr__(self, '_seeded', dataset)

    def __getattr__(self, name: str) -> Any:
        if name == '_seeded':
            raise AttributeError(name)
        return getattr(self._seeded, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._seeded, name, value)

    def __reduce__(self) -> tuple:
        return SeededDataset, (self._seeded,)

    def __len__(self) -> int:
        return len(self._seeded)

    def __getitem__(self, index: int) -> Any:
        if isinstance(index, SeededIndex):
            seed_everything_for_sample(index.seed)
        return self._seeded[index]


def resumable(dataloader: dict, infinite: bool) -> dict:
    """Rewrite a data loader's config so that :func:`start_loader_at` can start it at any batch.

    mmengine's ``DefaultSampler`` and ``InfiniteSampler`` become :class:`ResumableSampler`; other samplers and
    batch samplers are wrapped.

    Args:
        dataloader (dict): Config of a data loader, or one that has been rewritten before.
        infinite (bool): Sample without end (for training by iterations) instead of epoch by epoch.
    """
    cfg = copy.deepcopy(dict(dataloader))
    dataset = cfg['dataset']
    if isinstance(dataset, dict):
        dataset = ROOT_DATASETS.build(dataset)
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
    cfg['dataset'] = dataset if isinstance(dataset, SeededDataset) else SeededDataset(dataset)

    sampler = dict(cfg.get('sampler') or {'type': ResumableSampler})
    cls = sampler['type']
    if isinstance(cls, str):
        with ROOT_SAMPLERS.switch_scope_and_registry(sampler.get('_scope_')) as registry:
            cls = registry.get(cls)
    if cls in (DefaultSampler, InfiniteSampler):
        cls = ResumableSampler
    if isinstance(cls, type) and issubclass(cls, ResumableSampler):
        sampler = {**sampler, 'type': cls, 'infinite': infinite}
    elif cls is not SeededSampler:
        sampler = {'type': SeededSampler, 'inner': sampler}
    cfg['sampler'] = sampler

    batch_sampler = cfg.get('batch_sampler')
    if isinstance(batch_sampler, dict) and batch_sampler['type'] is not SkippingBatchSampler:
        cfg['batch_sampler'] = {'type': SkippingBatchSampler, 'inner': batch_sampler}
    return cfg


class BatchClock:
    """Seconds that a training loop has waited for its batch.

    Attributes:
        waited: for the present one.
    """

    def __init__(self) -> None:
        self.waited, self._got = 0.0, time.perf_counter()

    def since_batch(self) -> float:
        """Seconds since the batch came."""
        return time.perf_counter() - self._got

    def timed(self, batches: Iterator) -> Iterator:
        """Yield batches, and note how long each was waited for."""
        while True:
            asked = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self._got = time.perf_counter()
            self.waited = self._got - asked
            yield batch


def sampler_of(loader: DataLoader) -> Any:
    """The sampler of single samples of a data loader, which may be inside a batch sampler."""
    return getattr(loader.batch_sampler, 'sampler', loader.sampler)


def start_loader_at(loader: DataLoader, seed: int, batch: int, epoch: int = 0, draw: int | None = None) -> Iterator:
    """Make an iterator over ``loader`` that starts at batch ``batch`` without loading the earlier ones.

    Args:
        loader (DataLoader): Built from a config of :func:`resumable`; any other loader is read from its beginning and
            its first batches are dropped, which is logged.
        seed (int): Seed of the run.
        batch (int): Batches that this process has used before, in this epoch or in the infinite run.
        epoch (int): The epoch; infinite samplers ignore it.
        draw (int, optional): Samples that all processes have used before; None: ``batch`` batches of the present size.
    """
    sampler = sampler_of(loader)
    if hasattr(sampler, 'set_epoch'):
        sampler.set_epoch(epoch)
    if isinstance(sampler, (ResumableSampler, SeededSampler)):
        sampler.seed = seed
        if isinstance(loader.batch_sampler, SkippingBatchSampler):
            loader.batch_sampler.start_at(batch)
        else:
            sampler.start_at(batch * loader.batch_size * get_world_size() if draw is None else draw)
        return iter(loader)

    iterator = iter(loader)
    for number in range(batch):
        if number == 0:
            print_log(
                f'The training data loader was not built from a config, so {batch} batches are read and dropped '
                'to find the place where the run stopped',
                logger='current',
            )
        next(iterator, None)
    return iterator
