"""Seeds of single samples: their random transforms do not depend on the worker or process."""

import random

import numpy as np
import torch


class SeededIndex(int):
    """An index into a data set that also carries the seed of the sample's random transforms.

    Args:
        index (int): Position in the data set.
        seed (int): Seed of the sample's transforms; only the low 64 bits count.

    >>> index = SeededIndex(3, seed=7)
    >>> index + 1, ['a', 'b', 'c', 'd'][index], index
    (4, 'd', SeededIndex(3, seed=7))
    """

    seed: int

    def __new__(cls, index: int, seed: int) -> 'SeededIndex':
        """Set the value, as an ``int`` is immutable."""
        self = super().__new__(cls, index)
        self.seed = int(seed)
        return self

    def __reduce__(self) -> tuple:
        # int's own pickling would lose the seed on the way to a worker
        return SeededIndex, (int(self), self.seed)

    def __repr__(self) -> str:
        return f'SeededIndex({int(self)}, seed={self.seed})'


def seed_everything_for_sample(seed: int) -> None:
    """Seed the global generators of ``random``, numpy and torch (CPU), from which transforms draw.

    The three seeds are different words of one hash of ``seed``, so that neighbouring seeds give unrelated streams and
    the generators are independent of each other.

    Args:
        seed (int): Any integer; its low 64 bits count.

    >>> seed_everything_for_sample(7)
    >>> drawn = random.random(), np.random.rand(), torch.rand(1).item()
    >>> seed_everything_for_sample(7)
    >>> drawn == (random.random(), np.random.rand(), torch.rand(1).item())
    True
    """
    words = np.random.SeedSequence(seed & 0xFFFF_FFFF_FFFF_FFFF).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.random.default_generator.manual_seed(int(words[2]) << 32 | int(words[3]))
