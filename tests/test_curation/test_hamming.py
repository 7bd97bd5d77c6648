"""Near-duplicates of hashes against a comparison of all with all, on even and on very uneven hashes."""

import numpy as np
import pytest

from florence_mm.curation import hamming


def by_brute_force(hashes, within):
    return {
        (i, j)
        for i in range(len(hashes))
        for j in i + 1 + np.flatnonzero(np.bitwise_count(hashes[i + 1 :] ^ hashes[i]) <= within).astype(int)
    }


def random_hashes(seed, count, mask=2**64 - 1):
    return np.random.default_rng(seed).integers(0, 2**64, count, np.uint64, endpoint=False) & np.uint64(mask)


def flipped(seed, hashes, most):
    """Each hash with 0 to ``most`` bits changed."""
    generator = np.random.default_rng(seed)
    masks = [sum(1 << int(bit) for bit in generator.permutation(64)[: generator.integers(most + 1)]) for _ in hashes]
    return hashes ^ np.array(masks, np.uint64)


def mixed(seed, hashes):
    return np.random.default_rng(seed).permutation(np.unique(hashes))


@pytest.mark.parametrize('many', [hamming.MANY, 100])
@pytest.mark.parametrize('within', [0, 1, 3, 5])
def test_every_near_pair_is_found_once_and_no_other(within, many, monkeypatch):
    monkeypatch.setattr(hamming, 'MANY', many)
    base = random_hashes(0, 700)
    hashes = mixed(1, np.concatenate([base, flipped(2, base, 6), flipped(3, base, 6)]))
    found = hamming.find_near(hashes, within)
    expected = by_brute_force(hashes, within)
    assert (len(expected) > 200) == (within > 0)
    assert sorted(map(tuple, found.pairs.tolist())) == sorted(expected)
    assert found.pairs.tolist() == sorted(found.pairs.tolist(), key=lambda pair: pair[::-1])


# what blank pages, borders and screenshots do: one block, two blocks, or all but 12 bits are equal
@pytest.mark.parametrize('mask', [0xFFFFFFFFFFFFE000, 0xFFFFFFFFFC000000, 0x0F0000F0000F0000, 0xFFF])
def test_hashes_that_agree_in_whole_blocks_are_neither_lost_nor_compared_all_with_all(mask, monkeypatch):
    monkeypatch.setattr(hamming, '_LARGE', 64)
    monkeypatch.setattr(hamming, '_AT_ONCE', 500)
    base = random_hashes(0, 1200, mask)
    hashes = mixed(1, np.concatenate([base, flipped(2, base[:300], 4) & np.uint64(mask)]))
    found = hamming.find_near(hashes)
    assert set(map(tuple, found.pairs.tolist())) == by_brute_force(hashes, 3)
    assert len(found.pairs) == len(set(map(tuple, found.pairs.tolist())))


def test_a_large_group_is_divided():
    # 26 bits, two whole blocks, are equal in all of them
    hashes = mixed(0, random_hashes(0, 20_000, 0xFFFFFFFFFC000000))
    found = hamming.find_near(hashes)
    all_with_all = len(hashes) * (len(hashes) - 1) // 2
    assert found.compared < all_with_all / 20


def test_few_pairs_are_compared():
    # 40,000 hashes that are near to others in 4,000 pairs: ten tables of 2**25 keys
    base = random_hashes(0, 36_000)
    hashes = mixed(1, np.concatenate([base, flipped(2, base[:4000], 3)]))
    found = hamming.find_near(hashes)
    assert len(found.pairs) < found.compared < 4000 * 8


def test_the_choice_worked_by_hand():
    # 0 is near 1, 1 near 2, 2 near 3: 1 goes, so 2 stays, and 3 goes; a component would keep 0 alone
    pairs = np.array([[0, 1], [1, 2], [2, 3]])
    assert hamming.choose(5, pairs).tolist() == [0, 0, 2, 2, 4]
    # 3 is near to two that stay: the first of them
    assert hamming.choose(4, np.array([[0, 3], [1, 3], [2, 3]])).tolist() == [0, 1, 2, 0]
    assert hamming.choose(2, np.empty((0, 2), np.int64)).tolist() == [0, 1]


def test_what_is_left_out_is_near_to_what_stays():
    base = random_hashes(0, 300)
    hashes = mixed(1, np.concatenate([flipped(seed, base, 3) for seed in range(8)]))
    stands_for = hamming.choose(len(hashes), hamming.find_near(hashes).pairs)
    stays = stands_for == np.arange(len(hashes))
    assert 0 < stays.sum() < len(hashes)
    assert stays[stands_for].all()
    assert (np.bitwise_count(hashes ^ hashes[stands_for]) <= 3).all()
    assert not by_brute_force(hashes[stays], 3)


def test_bits_are_counted():
    values = np.concatenate([random_hashes(0, 1000), np.array([0, 1, 2**63, 2**64 - 1], np.uint64)])
    assert hamming.count_bits(values).tolist() == [int(value).bit_count() for value in values]


@pytest.mark.parametrize(
    ('hashes', 'within', 'sentence'),
    [
        (np.array([1, 2]), 3, r'hashes have shape \(2,\) and type int64; expected \(N,\) uint64'),
        (np.array([5, 4, 5], np.uint64), 3, 'some hashes are equal; give each once'),
        (np.array([5], np.uint64), 7, 'within is 7; expected 0 to 6 of 64 bits'),
    ],
)
def test_what_is_no_list_of_hashes_is_refused(hashes, within, sentence):
    with pytest.raises(ValueError, match=sentence):
        hamming.find_near(hashes, within)
