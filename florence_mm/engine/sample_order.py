"""Orders of the samples of one epoch: all of them shuffled, or shuffled in blocks of whole shards.

Not here: which rank takes which place of the order (``samplers``).
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from florence_mm.datasets.order_parts import OrderPart
from florence_mm.utils.permutation import DrawnPermutation, KeyedPermutation, Permutation, permutation

from .seeding import combine_seeds

ORDERS = ('auto', 'drawn', 'keyed')


class Order(Protocol):
    """Samples of an epoch by their places."""

    def __getitem__(self, position: int) -> int: ...


def shuffled(size: int, seed: int, order: str) -> Permutation:
    """Shuffle all samples, see :class:`~florence_mm.engine.samplers.ResumableSampler`."""
    if order == 'auto':
        return permutation(size, seed)
    return DrawnPermutation(size, seed) if order == 'drawn' else KeyedPermutation(size, seed)


class BlockOrder:
    """Samples shuffled in blocks, each of some whole shards, so that few shards are in use at a time.

    The shards of each part that has shards are permuted and taken some at a time; the samples of a part without shards
    are permuted and cut into as many pieces; the first block has the first of each, and so on. The samples of a block
    are permuted. So each block has its share of every part, and each sample occurs once.

    Args:
        parts (Sequence[OrderPart]): Consecutive ranges of samples.
        seed (int): Of the order.
    """

    def __init__(self, parts: Sequence[OrderPart], seed: int) -> None:
        self.seed = seed
        self.parts = parts
        self.blocks = max(-(-len(part.ends) // part.block) for part in parts if part.ends is not None)
        self._pieces = [
            _Whole(part.size, self.blocks, combine_seeds(seed, number))
            if part.ends is None
            else _Shards(part.ends, self.blocks, combine_seeds(seed, number))
            for number, part in enumerate(parts)
        ]
        self._starts = np.cumsum([0] + [part.size for part in parts]).tolist()
        # (parts + 1, blocks): samples of the parts before, in each block
        sizes = np.diff([piece.ends for piece in self._pieces], prepend=0, axis=1)
        self._within = np.cumsum(np.vstack([np.zeros_like(sizes[:1]), sizes]), axis=0)
        self._ends = np.cumsum(self._within[-1]).tolist()
        self._cached: tuple[int, Permutation] | None = None

    def __len__(self) -> int:
        return self._ends[-1]

    def block_of(self, position: int) -> int:
        """Number of the block at a place."""
        return bisect_right(self._ends, position)

    def shards_of(self, block: int) -> list[Sequence[int]]:
        """Numbers of the shards of a block, of each part."""
        return [piece.shards_of(block) for piece in self._pieces]

    def __getitem__(self, position: int) -> int:
        block = self.block_of(position)
        start = self._ends[block - 1] if block else 0
        if self._cached is None or self._cached[0] != block:
            self._cached = (
                block,
                permutation(self._ends[block] - start, combine_seeds(self.seed, block, len(self.parts))),
            )
        inner = self._cached[1][position - start]
        before = self._within[:, block]
        number = int(np.searchsorted(before, inner, side='right')) - 1
        return self._starts[number] + self._pieces[number].index(block, inner - int(before[number]))


class _Whole:
    """A part without shards: its samples permuted, and cut into blocks."""

    def __init__(self, size: int, blocks: int, seed: int) -> None:
        self.ends = np.array([(block + 1) * size // blocks for block in range(blocks)])
        self._order = permutation(size, seed)

    def shards_of(self, block: int) -> Sequence[int]:
        return ()

    def index(self, block: int, place: int) -> int:
        return self._order[place + (int(self.ends[block - 1]) if block else 0)]


class _Shards:
    """A part of shards: these permuted, and divided evenly among the blocks."""

    def __init__(self, ends: np.ndarray, blocks: int, seed: int) -> None:
        order = DrawnPermutation(len(ends), seed)
        self._order = np.array([order[place] for place in range(len(ends))])
        self._firsts = np.concatenate([[0], ends[:-1]])[self._order]
        sizes = np.diff(ends, prepend=0)[self._order]
        self._shard_ends = np.cumsum(sizes)
        self._bounds = [block * len(ends) // blocks for block in range(blocks + 1)]
        self.ends = np.concatenate([[0], self._shard_ends])[self._bounds[1:]]

    def shards_of(self, block: int) -> Sequence[int]:
        return self._order[self._bounds[block] : self._bounds[block + 1]].tolist()

    def index(self, block: int, place: int) -> int:
        place += int(self.ends[block - 1]) if block else 0
        number = int(np.searchsorted(self._shard_ends, place, side='right'))
        return int(self._firsts[number]) + place - (int(self._shard_ends[number - 1]) if number else 0)


def fetch_ahead(parts: Sequence[OrderPart], shards: Sequence[Sequence[int]]) -> None:
    """Let each part fetch the shards that will soon be read, if it can."""
    for part, numbers in zip(parts, shards, strict=True):
        if part.fetch is not None and len(numbers):
            part.fetch(numbers)
