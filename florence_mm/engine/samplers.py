"""Samplers that can start at any sample, and give each sample its own seed.

A *draw* is one sample taken by any rank. Rank ``r`` of ``W`` takes the draws ``r, r + W, r + 2W, ...``, so that a
batch of ``W`` ranks has the same samples as one process with a batch ``W`` times as large. The sample of a draw,
and the seed of its random transforms, depend only on the run's seed and the number of the draw.
"""

import math
from collections.abc import Iterator, Sequence, Sized
from typing import Any

from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS as ROOT_SAMPLERS
from torch.utils.data import Sampler

from florence_mm.datasets.order_parts import order_parts
from florence_mm.errors import shown
from florence_mm.registry import DATA_SAMPLERS
from florence_mm.utils.permutation import LARGEST_DRAWN
from florence_mm.utils.seeded import SeededIndex

from .sample_order import ORDERS, BlockOrder, Order, fetch_ahead, shuffled
from .seeding import ORDER, SAMPLE, combine_seeds


@DATA_SAMPLERS.register_module()
class ResumableSampler(Sampler[int]):
    """Sampler of shuffled or sequential indices, split over ranks, that can start at any draw at no cost.

    Args:
        dataset (Sized): The data set.
        shuffle (bool): Draw a new order every epoch. Defaults to True.
        seed (int, optional): Seed of the order and the samples; None: a random one that all ranks share.
        infinite (bool): Continue with the next epoch without end, for training by iterations. Defaults to False.
        round_up (bool): Give every rank the same number of samples per epoch, repeating the first ones if the data set
            does not divide evenly; otherwise the last ranks get one less. Infinite sampling has no remainder. Defaults
            to True.
        order (str): How the order of an epoch is made. ``'drawn'`` holds all indices in memory, 3.6 GB in each process
            at 900M samples; ``'keyed'`` computes the sample of each place and holds nothing. ``'auto'``: drawn below
            2**24 samples and keyed from there on, or in blocks if the data set reads its shards from a store (see
            :class:`~florence_mm.datasets.shards.ImageTextShards`). The orders differ, so a run goes on with the one
            that it began with: a run over more than 2**24 samples of a version without this argument needs ``'drawn'``.
            Defaults to ``'auto'``.

    Raises:
        ValueError: the data set is empty, or there is no such order.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = None,
        infinite: bool = False,
        round_up: bool = True,
        order: str = 'auto',
    ) -> None:
        if order not in ORDERS:
            raise ValueError(f'order={shown(order)} must be one of {", ".join(map(repr, ORDERS))}')
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        self.infinite = infinite
        self.round_up = round_up
        self.epoch = 0
        self._start = 0
        self.order = order
        self._order: tuple[tuple[int, int, int], Order] | None = None
        self._block: tuple[int, int] | None = None
        if len(dataset) == 0:
            raise ValueError(f'data set {type(dataset).__name__} has no samples; check its annotation file and filters')

    def __len__(self) -> int:
        """Number of samples of this rank per epoch."""
        size = len(self.dataset)
        if self.round_up or self.infinite:
            return math.ceil(size / self.world_size)
        return math.ceil((size - self.rank) / self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass; infinite sampling counts epochs itself."""
        self.epoch = epoch

    def start_at(self, draw: int) -> None:
        """Start only the next pass at global draw ``draw`` (of the epoch, or of the infinite run)."""
        self._start = draw

    def __iter__(self) -> Iterator[int]:
        start, self._start = self._start, 0
        return self._infinite(start) if self.infinite else self._one_epoch(start, self.epoch)

    def _infinite(self, start: int) -> Iterator[int]:
        size, draw = len(self.dataset), start + self.rank
        while True:
            epoch, position = divmod(draw, size)
            yield self._sample(epoch, position, draw)
            draw += self.world_size

    def _one_epoch(self, start: int, epoch: int) -> Iterator[int]:
        size = len(self.dataset)
        total = math.ceil(size / self.world_size) * self.world_size if self.round_up else size
        for draw in range(start + self.rank, total, self.world_size):
            yield self._sample(epoch, draw % size, epoch * total + draw)

    def _sample(self, epoch: int, position: int, draw: int) -> SeededIndex:
        index = self._place(epoch, position) if self.shuffle else position
        return SeededIndex(index, combine_seeds(self.seed, SAMPLE, draw))

    def _place(self, epoch: int, position: int) -> int:
        order = self._epoch_order(epoch)
        if isinstance(order, BlockOrder):
            block = order.block_of(position)
            if self._block != (epoch, block):
                self._block = epoch, block
                self._fetch_ahead(order, epoch, block)
        return order[position]

    def _fetch_ahead(self, order: BlockOrder, epoch: int, block: int) -> None:
        """Let the data set fetch the shards of a block that begins, and those of the next."""
        following, number = order, block + 1
        if number == order.blocks:
            following, number = self._make_order(epoch + 1), 0
        both = zip(order.shards_of(block), following.shards_of(number), strict=True)
        fetch_ahead(order.parts, [[*now, *then] for now, then in both])

    @property
    def order_name(self) -> str:
        """The kind of order in words: a run that resumes goes on with its samples only if it is the same."""
        if not self.shuffle:
            return 'unshuffled'
        parts = order_parts(self.dataset) if self.order == 'auto' else []
        blocks = [str(part.block) for part in parts if part.ends is not None]
        if blocks:
            return f'in blocks of {" and ".join(blocks)} shards'
        keyed = self.order == 'keyed' or self.order == 'auto' and len(self.dataset) >= LARGEST_DRAWN
        return 'keyed' if keyed else 'drawn'

    def _epoch_order(self, epoch: int) -> Order:
        """The order of an epoch, cached for one epoch."""
        key = (self.seed, epoch, len(self.dataset))
        if self._order is None or self._order[0] != key:
            self._order = key, self._make_order(epoch)
        return self._order[1]

    def _make_order(self, epoch: int) -> Order:
        seed = combine_seeds(self.seed, ORDER, epoch)
        parts = order_parts(self.dataset) if self.order == 'auto' else []
        if any(part.ends is not None for part in parts):
            return BlockOrder(parts, seed)
        return shuffled(len(self.dataset), seed, self.order)


@DATA_SAMPLERS.register_module()
class SeededSampler(Sampler):
    """Wrapper of another package's sampler that seeds each sample and can start later.

    To start later it iterates over the inner sampler's earlier indices, without loading samples. Resuming is exact only
    if the inner order depends on its seed and epoch, not on global random state. Entries that are not integers pass
    unchanged, without seed.

    Args:
        inner (dict or Sampler): The sampler; a dict is built with ``dataset`` and ``seed``.
        dataset (Sized): The data set.
        seed (int, optional): Seed of the samples and the inner sampler; None: a random one that all ranks share.
    """

    def __init__(self, inner: dict | Sampler, dataset: Sized, seed: int | None = None) -> None:
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.epoch = 0
        self._start = 0
        self._seed = sync_random_seed() if seed is None else seed
        if isinstance(inner, dict):
            inner = ROOT_SAMPLERS.build(inner, default_args={'dataset': dataset, 'seed': self._seed})
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        # batch samplers of other packages read attributes of their sampler
        if name == 'inner':
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)

    @property
    def seed(self) -> int:
        """Seed of the samples and of the inner sampler."""
        return self._seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self._seed = seed
        if hasattr(self.inner, 'seed'):
            self.inner.seed = seed

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass."""
        self.epoch = epoch
        if hasattr(self.inner, 'set_epoch'):
            self.inner.set_epoch(epoch)

    def start_at(self, draw: int) -> None:
        """Start only the next pass at global draw ``draw``, a multiple of the number of ranks."""
        self._start = draw

    def __iter__(self) -> Iterator:
        start, self._start = self._start, 0
        for count, index in enumerate(self.inner):
            draw = count * self.world_size + self.rank
            if draw < start:
                continue
            if isinstance(index, int):
                index = SeededIndex(index, combine_seeds(self._seed, SAMPLE, self.epoch, draw))
            yield index


@DATA_SAMPLERS.register_module()
class SkippingBatchSampler(Sampler[list]):
    """Wrapper of another package's batch sampler that can start at a later batch.

    Batch samplers that group samples (by aspect ratio, say) keep state between batches; iterating over the indices of
    the earlier batches, without loading samples, restores it.

    Args:
        inner (dict or Sampler): The batch sampler; a dict is built with ``sampler`` and ``batch_size``.
        sampler (Sampler): Sampler of the indices.
        batch_size (int): Samples per batch.
    """

    def __init__(self, inner: dict | Sampler, sampler: Sampler, batch_size: int) -> None:
        if isinstance(inner, dict):
            inner = ROOT_SAMPLERS.build(inner, default_args={'sampler': sampler, 'batch_size': batch_size})
        self.inner = inner
        self.sampler = sampler
        self.batch_size = batch_size
        self._start = 0

    def __len__(self) -> int:
        return len(self.inner)

    def start_at(self, batch: int) -> None:
        """Start only the next pass at batch number ``batch``."""
        self._start = batch

    def __iter__(self) -> Iterator[Sequence]:
        start, self._start = self._start, 0
        for number, batch in enumerate(self.inner):
            if number >= start:
                yield batch
