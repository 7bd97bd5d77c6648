"""Near features, exactly and through cells."""

import numpy as np
import pytest
from columns_by_hand import write_sidecar

from florence_mm.curation import embeddings
from florence_mm.errors import DataError


def test_rounded_features_have_exact_products():
    features = np.random.default_rng(0).standard_normal((64, 30_000)).astype(np.float16)
    rounded = embeddings.quantize(features)
    exact = rounded.astype(np.int64) @ rounded.astype(np.int64).T
    assert exact.max() < 2**24
    single = rounded.astype(np.float32)
    assert (single @ single.T == exact).all()
    # in another order, too
    assert (single[:, ::-1] @ single[:, ::-1].T == exact).all()
    assert embeddings.quantize(np.array([[3.0, 4.0], [0, 0], [np.nan, 1], [np.inf, 1]])).tolist() == [
        [2400, 3200],
        [0, 0],
        [0, 0],
        [0, 0],
    ]


def planted(count, near, width=32, seed=0):
    """Features of which the last are those at the start, turned to a cosine of about 0.98."""
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((count, width)).astype(np.float32)
    features[-near:] = features[:near] + 0.2 * generator.standard_normal((near, width))
    return embeddings.quantize(features), generator.integers(0, 2**64, count, np.uint64)


def one_by_one(features, cosine):
    """The definition: each is near to an earlier one that stays, or stays."""
    stays = []
    for number, feature in enumerate(features.astype(np.int64)):
        if all(feature @ features[other].astype(np.int64) < cosine * 4000 * 4000 for other in stays):
            stays.append(number)
    return sorted(set(range(len(features))) - set(stays))


@pytest.mark.parametrize('block', [7, 1024])
def test_all_with_all_is_the_definition(block, monkeypatch):
    monkeypatch.setattr(embeddings, '_BLOCK', block)
    features, sampling = planted(300, 60, width=6)  # few directions, so that chains of near ones occur
    expected = one_by_one(features, 0.9)
    assert len(expected) > 100
    assert np.flatnonzero(embeddings.find_near_features(features, sampling, 0.9)).tolist() == expected


def test_only_those_that_count():
    features, sampling = planted(20, 5)
    among = np.ones(20, bool)
    among[[0, 16]] = False  # 15 is near to 0, which does not count
    assert np.flatnonzero(embeddings.find_near_features(features, sampling, 0.9, among)).tolist() == [17, 18, 19]


def test_cells_find_nearly_all(monkeypatch):
    features, sampling = planted(3000, 500)
    exact = embeddings.find_near_features(features, sampling, 0.9)
    monkeypatch.setattr(embeddings, 'ALL_WITH_ALL', 100)
    monkeypatch.setattr(embeddings, '_IN_CELL', 100)
    found = embeddings.find_near_features(features, sampling, 0.9)
    assert exact[2500:].all() and not exact[:2500].any()
    assert not found[~exact].any()
    assert found.sum() > 0.97 * exact.sum()
    assert (found == embeddings.find_near_features(features, sampling, 0.9)).all()


def test_features_of_two_models_are_refused(tmp_path):
    paths = [
        write_sidecar(tmp_path / '0.parquet', [{'embedding': [1, 0]}], 0, 2),
        write_sidecar(tmp_path / '1.parquet', [{'embedding': [1, 0, 0]}], 1, 3),
    ]
    sentence = '1.parquet has embeddings of width 3, others have 2; run stage A with one model'
    with pytest.raises(DataError, match=sentence), embeddings.read_features(paths, np.array([0, 2**32]), tmp_path):
        pytest.fail('two widths')
    sentence = '1.parquet has embeddings of width 3, the pairs have 2; run stage A on both with one model'
    with pytest.raises(DataError, match=sentence):
        embeddings.near_to_any(np.zeros((1, 2), np.int16), paths[1:], 0.9)


def test_rows_are_read_by_their_id(tmp_path):
    rows = [{'embedding': [1, 0]}, {'embedding': [0, 0]}, {'embedding': [0, 2]}, {'embedding': [0, -1]}]
    path = write_sidecar(tmp_path / '0.parquet', rows, width=2)
    with embeddings.read_features([path], np.array([1, 2, 7]), tmp_path) as features:
        assert features.tolist() == [[0, 0], [0, 4000], [0, 0]]
    with embeddings.read_features([path], np.array([], np.int64), tmp_path) as features:
        assert len(features) == 0
