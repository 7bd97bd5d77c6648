from collections import Counter

import numpy as np
import pytest
from torch.utils.data import Dataset

from florence_mm.datasets import WeightedMixture
from florence_mm.datasets.mixture import share_out


class Rows(Dataset):
    """A data set whose samples are (name, row)."""

    def __init__(self, name, size, **metainfo):
        self.name, self.size, self.metainfo = name, size, metainfo

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        assert 0 <= index < self.size
        return self.name, index


def mix(*entries, **kwargs):
    return WeightedMixture([{'dataset': dataset, 'weight': weight} for dataset, weight in entries], **kwargs)


def test_share_out_by_hand():
    assert share_out(10, [1, 1, 1]) == [4, 3, 3]
    assert share_out(10, [0.5, 0.3, 0.2]) == [5, 3, 2]
    assert share_out(7, [1, 2, 4]) == [1, 2, 4]
    assert share_out(3, [0.1, 0.1, 0.1]) == [1, 1, 1]
    # 2.5, 1.25, 1.25: the rounded-down parts leave one, for the largest remainder
    assert share_out(5, [2, 1, 1]) == [3, 1, 1]
    # nothing is lost over many weights
    assert sum(share_out(1001, [1 / 3, 0.7, 1e-3, 2])) == 1001


def test_default_epoch_holds_every_row():
    # equal weights and 3 + 10 rows: 10 samples of each; 3 rows in 10 samples occur 3, 3 and 4 times
    mixture = mix((Rows('a', 3), 1), (Rows('b', 10), 1))
    assert len(mixture) == 20
    counts = Counter(mixture[i] for i in range(20))
    assert [counts['b', i] for i in range(10)] == [1] * 10
    assert sorted(counts['a', i] for i in range(3)) == [3, 3, 4]
    # the same again: nothing is random
    assert [mixture[i] for i in range(20)] == [mixture[i] for i in range(20)]
    # weights 0.3 and 0.7, 100 and 7 rows: 100 / 0.3 rounded up
    mixture = mix((Rows('a', 100), 0.3), (Rows('b', 7), 0.7))
    assert len(mixture) == 334
    assert mixture.shares == [100, 234]
    assert {mixture[i] for i in range(100)} == {('a', i) for i in range(100)}


@pytest.mark.parametrize('sizes', [(3, 1000), (17, 5, 91), (1, 1)])
@pytest.mark.parametrize('seed', range(5))
def test_every_row_occurs_for_random_weights(sizes, seed):
    weights = np.random.default_rng(seed).uniform(0.01, 1, len(sizes))
    mixture = mix(
        *[(Rows(str(i), size), float(weight)) for i, (size, weight) in enumerate(zip(sizes, weights, strict=True))]
    )
    counts = Counter(mixture[i] for i in range(len(mixture)))
    assert len(counts) == sum(sizes)
    for i, (size, share) in enumerate(zip(sizes, mixture.shares, strict=True)):
        assert {counts[str(i), row] for row in range(size)} <= {share // size, share // size + 1}
        assert abs(share / len(mixture) - weights[i] / weights.sum()) < 1 / len(mixture)


def test_small_epoch_meets_all_rows_in_time():
    mixture = mix((Rows('a', 100), 1), (Rows('b', 10), 1), epoch_size=20)
    np.random.seed(3)
    first = [mixture[i] for i in range(20)]
    # one row from each stretch of ten
    assert [row // 10 for name, row in first if name == 'a'] == list(range(10))
    np.random.seed(3)
    assert [mixture[i] for i in range(20)] == first
    seen = {mixture[i] for _ in range(200) for i in range(20)}
    assert len(seen) == 110


def test_indices():
    mixture = mix((Rows('a', 2), 1), (Rows('b', 2), 1))
    assert [mixture[i] for i in range(-4, 0)] == [('a', 0), ('a', 1), ('b', 0), ('b', 1)]
    for index in (4, -5):
        with pytest.raises(IndexError, match='outside the 4 samples'):
            mixture[index]


def test_metainfo_keeps_what_all_agree_on():
    one = Rows('a', 2, classes=('x', 'y'), task='t', width=3, palette=[1, 2])
    two = Rows('b', 2, classes=['x', 'z'], task='t', palette=(1, 2), other=5)
    mixture = mix((one, 1), (two, 1))
    assert mixture.metainfo == {'task': 't', 'width': 3, 'palette': [1, 2], 'other': 5}
    assert mix((one, 1), (two, 1), metainfo={'classes': ('q',)}).metainfo['classes'] == ('q',)


def test_nested_mixture_and_lazy_init():
    inner = mix((Rows('a', 2), 1), (Rows('b', 2), 1), lazy_init=True)
    outer = mix((inner, 1), (Rows('c', 4), 1))
    assert Counter(name for name, _ in (outer[i] for i in range(len(outer)))) == {'a': 2, 'b': 2, 'c': 4}


def test_bad_mixtures():
    rows = Rows('a', 2)
    for weight in (0, -1, float('nan'), float('inf')):
        with pytest.raises(ValueError, match='must be a positive number'):
            mix((rows, weight))
    with pytest.raises(ValueError, match='at least one data set'):
        mix()
    with pytest.raises(ValueError, match=r"entry 0 of WeightedMixture is \{'data_set'"):
        WeightedMixture([{'data_set': rows, 'weight': 1}])
    with pytest.raises(ValueError, match='an epoch of 10 samples leaves none for data set 1 of weight 1'):
        mix((rows, 1000), (rows, 1), epoch_size=10)
