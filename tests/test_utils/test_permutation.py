"""Permutations computed for one index at a time."""

import numpy as np
import pytest

from florence_mm.utils import permutation as module
from florence_mm.utils.permutation import DrawnPermutation, KeyedPermutation, permutation


def test_the_mixing_is_that_of_splitmix64():
    # its first two outputs from the state 0, as Java's SplittableRandom gives them
    assert module._mixed(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF
    assert module._mixed(2 * 0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4


@pytest.mark.parametrize('size', [1, 2, 3, 4, 5, 8, 9, 31, 64, 65, 1000])
def test_each_index_once(size):
    for seed in (0, 1, 2**63 - 1):
        order = KeyedPermutation(size, seed)
        assert sorted(order[place] for place in range(size)) == list(range(size)) and len(order) == size


def test_all_places_are_equally_likely():
    size, seeds = 12, 2000
    counts = np.zeros((size, size))
    neighbours = 0
    for seed in range(seeds):
        order = KeyedPermutation(size, seed)
        found = [order[place] for place in range(size)]
        counts[np.arange(size), found] += 1
        neighbours += sum(abs(one - two) == 1 for one, two in zip(found, found[1:], strict=False))
    expected = seeds / size
    # chi-square of 121 degrees of freedom: 99.9 % of the permutations drawn by chance stay below 173
    assert ((counts - expected) ** 2 / expected).sum() < 173
    assert neighbours / seeds == pytest.approx(2 * (size - 1) / size, abs=0.1)


def test_a_large_permutation_has_no_pattern():
    order = KeyedPermutation(900_000_000, seed=5)
    found = np.array([order[place] for place in range(20_000)]) / 900_000_000
    assert found.min() >= 0 and found.max() < 1 and len(set(found)) == 20_000
    assert found.mean() == pytest.approx(0.5, abs=0.01) and found.var() == pytest.approx(1 / 12, abs=0.002)
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.03


def test_the_order_stays_that_of_runs_before():
    order = KeyedPermutation(900_000_000, seed=5)
    assert [order[place] for place in (0, 1, 2, 899_999_999)] == [236002938, 667948885, 231997348, 853562385]
    with pytest.raises(IndexError, match='900000000 is outside'):
        order[900_000_000]


def test_small_ones_are_drawn(monkeypatch):
    assert isinstance(permutation(100, 1), DrawnPermutation)
    monkeypatch.setattr(module, 'LARGEST_DRAWN', 100)
    assert isinstance(permutation(100, 1), KeyedPermutation) and isinstance(permutation(99, 1), DrawnPermutation)
