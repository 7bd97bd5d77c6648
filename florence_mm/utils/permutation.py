"""Permutations of 0 to n - 1: drawn as a whole, or computed for one index at a time from a key."""

from typing import Protocol

import torch

_MASK = (1 << 64) - 1
_ROUNDS = 8
#: From this size on a permutation is computed: a drawn one would take 64 MB, and seconds for each epoch.
LARGEST_DRAWN = 1 << 24


class Permutation(Protocol):
    """A permutation of ``range(len(self))``."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int) -> int: ...


class DrawnPermutation:
    """The permutation of :func:`torch.randperm`; 4 bytes an index.

    Args:
        size (int): Number of indices.
        seed (int): Of the generator.
    """

    def __init__(self, size: int, seed: int) -> None:
        dtype = torch.int32 if size < 2**31 else torch.int64
        self._order = torch.randperm(size, generator=torch.Generator().manual_seed(seed), dtype=dtype)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, position: int) -> int:
        return int(self._order[position])


class KeyedPermutation:
    """A permutation that is computed for each index, in constant memory.

    An unbalanced Feistel network (eight rounds, alternating halves) permutes the numbers of as many bits as
    ``size - 1`` has; a number from ``size`` on is sent through it again until it is below (cycle walking, Black and
    Rogaway 2002), which takes less than two passes on average.

    Args:
        size (int): Number of indices.
        seed (int): The key.

    >>> order = KeyedPermutation(10, seed=3)
    >>> sorted(order[position] for position in range(10)) == list(range(10))
    True
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        bits = max((size - 1).bit_length(), 2)
        self._low = bits // 2
        self._low_mask, self._high_mask = (1 << self._low) - 1, (1 << bits - self._low) - 1
        self._keys = [_mixed(seed + (number + 1) * 0x9E3779B97F4A7C15) for number in range(_ROUNDS)]

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, position: int) -> int:
        if not 0 <= position < self.size:
            raise IndexError(f'{position} is outside a permutation of {self.size}')
        while True:
            low, high = position & self._low_mask, position >> self._low
            for number in range(0, _ROUNDS, 2):
                low ^= _mixed(high + self._keys[number]) & self._low_mask
                high ^= _mixed(low + self._keys[number + 1]) & self._high_mask
            position = high << self._low | low
            if position < self.size:
                return position


def permutation(size: int, seed: int) -> Permutation:
    """Draw a permutation, or from :data:`LARGEST_DRAWN` on compute it."""
    return KeyedPermutation(size, seed) if size >= LARGEST_DRAWN else DrawnPermutation(size, seed)


def _mixed(value: int) -> int:
    """Mix the bits of a number (the finaliser of SplitMix64)."""
    value &= _MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31
