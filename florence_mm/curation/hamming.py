"""Near-duplicates of perceptual hashes: all pairs within a few bits, and the choice of what stays.

Two hashes that differ in at most k bits are equal in two of k + 2 blocks of bits, whichever bits they are. So each
pair of blocks makes a table of the hashes, sorted by those two blocks, and only hashes with equal keys are compared
(Manku, Jain and Das Sarma, "Detecting near-duplicates for web crawling", WWW 2007). For 3 of 64 bits these are ten
tables with keys of 25 or 26 bits; of hundreds of millions, too many have one such key, and 20 tables with keys of three
of six blocks take less time.

Hashes of real pictures are not spread evenly: blank ones and those with a border agree in most blocks. A group with one
key that has become large is therefore divided again by the bits that its key lacks, rather than compared all with all.
"""

import re
from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np

#: A key and the row that has it are one word: three of six blocks are at most 33 bits, which leaves 31 for rows.
_MOST_ROWS = 1 << 31
#: Hashes of one table that are looked at together, some 100 bytes each.
_AT_ONCE = 1 << 20
#: Hashes with one key above which they are divided again.
_LARGE = 1024
#: Hashes from which on keys have three blocks.
MANY = 300_000_000
#: Bits by which nothing is divided, and values that are compared all with all where a key hardly divides them.
_FEW_BITS = 10
_ALL_WITH_ALL = 1 << 17


class Near(NamedTuple):
    """Near pairs of hashes.

    Attributes:
        pairs: ``(P, 2)`` int64, each pair of rows once, smaller row first, sorted by the second row, then the first.
        compared: number of pairs of hashes that were compared.
    """

    pairs: np.ndarray
    compared: int


class _Found(NamedTuple):
    """Rows of near pairs, and of how many compared pairs they are."""

    left: np.ndarray
    right: np.ndarray
    compared: int


def find_near(hashes: np.ndarray, within: int = 3) -> Near:
    """Find all pairs of hashes that differ in at most ``within`` bits.

    Needs some 24 bytes a hash beside them, and 32 a pair found.

    Args:
        hashes: ``(N,)`` uint64, all different.
        within: number of bits, 0 to 6.

    Raises:
        ValueError: ``hashes`` are not different uint64, or ``within`` is out of its range.
    """
    if hashes.ndim != 1 or hashes.dtype != np.uint64 or len(hashes) > _MOST_ROWS:
        raise ValueError(f'hashes have shape {hashes.shape} and type {hashes.dtype}; expected (N,) uint64, N to 2**31')
    if not 0 <= within <= 6:
        raise ValueError(f'within is {within}; expected 0 to 6 of 64 bits')
    ordered = np.sort(hashes)
    if (ordered[1:] == ordered[:-1]).any():
        raise ValueError('some hashes are equal; give each once')
    del ordered
    found, compared = [np.empty((0, 2), np.int64)], 0
    for left, right, number in _search(hashes, within) if len(hashes) else ():
        compared += number
        if len(left):
            found.append(np.stack([left, right], axis=1))
    pairs = np.concatenate(found)
    return Near(pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))], compared)


def choose(count: int, pairs: np.ndarray) -> np.ndarray:
    """Choose what stays of near-duplicates: row by row, each that is near to no row chosen before it.

    Everything left out is near to something chosen. Connected components would not say that: they chain pictures that
    have nothing in common.

    Args:
        count: N, number of rows, the preferred ones first.
        pairs: see :class:`Near`.

    Returns:
        ``(N,)`` int64, for each row the first chosen one that it is near to, or itself if it is chosen.
    """
    stands_for = np.arange(count)
    chosen = bytearray(b'\1') * count
    for start in range(0, len(pairs), _AT_ONCE):
        # sorted by the second row: what is known of the first is final
        for first, second in pairs[start : start + _AT_ONCE].tolist():
            if chosen[first] and chosen[second]:
                chosen[second] = 0
                stands_for[second] = first
    return stands_for


def count_bits(values: np.ndarray) -> np.ndarray:
    """Count the bits that are set in each of ``values`` uint64, as uint8.

    >>> count_bits(np.array([0, 7, 2**64 - 1], np.uint64)).tolist()
    [0, 3, 64]
    """
    # sums of neighbouring fields of 1, 2 and 4 bits, then of all bytes ("Hacker's Delight", section 5-1)
    one, two, four = (np.uint64(mask) for mask in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F))
    values = values - ((values >> np.uint64(1)) & one)
    values = (values & two) + ((values >> np.uint64(2)) & two)
    values = (values + (values >> np.uint64(4))) & four
    return ((values * np.uint64(0x0101010101010101)) >> np.uint64(56)).astype(np.uint8)


def _search(values: np.ndarray, within: int, parent: int | None = None) -> Iterator[_Found]:
    """Yield near pairs of values, and how many pairs were compared.

    Args:
        values: ``(N,)`` uint64, all different.
        within: see :func:`find_near`.
        parent: number of the values of which these are a group with one key.
    """
    # bits that are the same in all of them divide nothing
    differing = f'{int(np.bitwise_or.reduce(values ^ values[0])):b}'[::-1]
    bits = differing.count('1')
    if bits < _FEW_BITS or (parent is not None and 4 * len(values) > parent and len(values) < _ALL_WITH_ALL):
        for number in range(len(values) - 1):
            others = np.arange(number + 1, len(values))
            yield _judge(values, np.full(len(others), number), others, within, [])
        return
    values = _gather(values, [(run.start(), len(run[0])) for run in re.finditer('1+', differing)])
    in_key = 2 if len(values) < MANY else 3
    count = max(within + in_key, 2 * in_key)  # of fewer blocks, a key would have too many bits
    blocks = [(low, high - low) for low, high in pairwise(bits * number // count for number in range(count + 1))]
    for key in combinations(range(count), in_key):
        # a pair equal in more blocks is in more tables: it counts where the key is of its first equal blocks
        before = [blocks[number] for number in range(key[-1]) if number not in key]
        for group, left, right in _compare_equal_keys(_gather(values, [blocks[number] for number in key])):
            if group is None:
                yield _judge(values, left, right, within, before)
                continue
            for left, right, compared in _search(values[group], within, parent=len(values)):
                near = _judge(values, group[left], group[right], within, before)
                yield _Found(near.left, near.right, compared)


def _gather(values: np.ndarray, blocks: list[tuple[int, int]]) -> np.ndarray:
    """Put blocks of bits, given by their lowest bit and their number of bits, side by side."""
    joined, place = np.zeros(len(values), np.uint64), 0
    for low, bits in blocks:
        joined |= ((values >> np.uint64(low)) & np.uint64((1 << bits) - 1)) << np.uint64(place)
        place += bits
    return joined


def _compare_equal_keys(keys: np.ndarray) -> Iterator[tuple[np.ndarray | None, np.ndarray, np.ndarray]]:
    """Yield rows with equal keys: pairs as two arrays, or one large group of rows, in ascending order.

    Args:
        keys: ``(N,)`` uint64 of at most 33 bits; is overwritten.
    """
    # one word of key and row: sorted in place, without a second array of places
    row_bits = np.uint64(max(1, (len(keys) - 1).bit_length()))
    row_mask = (1 << int(row_bits)) - 1
    keys <<= row_bits
    keys |= np.arange(len(keys), dtype=np.uint64)
    keys.sort()
    none = np.empty(0, np.int64)
    start = 0
    while start < len(keys):
        stop = min(start + _AT_ONCE, len(keys))
        last = (int(keys[stop - 1]) | row_mask) + 1
        stop = int(np.searchsorted(keys, np.uint64(last))) if last < 1 << 64 else len(keys)
        part, rows = keys[start:stop] >> row_bits, (keys[start:stop] & np.uint64(row_mask)).astype(np.int64)
        starts = np.concatenate([[0], np.flatnonzero(part[1:] != part[:-1]) + 1])
        sizes = np.diff(np.append(starts, len(part)))
        for number in np.flatnonzero(sizes > _LARGE):
            yield rows[starts[number] : starts[number] + sizes[number]], none, none
        small = np.repeat(sizes <= _LARGE, sizes)
        after = np.repeat(starts + sizes, sizes)  # end of each row's group
        live, step = np.flatnonzero(small), 1
        while len(live := live[live + step < after[live]]):
            yield None, rows[live], rows[live + step]
            step += 1
        start = stop


def _judge(
    values: np.ndarray, left: np.ndarray, right: np.ndarray, within: int, before: list[tuple[int, int]]
) -> _Found:
    """Keep the pairs that are near and differ in all blocks of ``before``; count all."""
    different = values[left] ^ values[right]
    good = count_bits(different) <= within
    for low, bits in before:
        good &= (different & np.uint64(((1 << bits) - 1) << low)) != 0
    return _Found(left[good], right[good], len(left))
