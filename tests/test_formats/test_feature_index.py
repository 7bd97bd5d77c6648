"""An index of features: search is a plain matrix product, and a kill loses nothing finished."""

import json
import os
import signal

import forks
import numpy as np
import pytest

from florence_mm.errors import DataError, UsageError
from florence_mm.formats.feature_index import FeatureIndex


def rows(count, dims=24, seed=0):
    x = np.random.default_rng(seed).standard_normal((count, dims)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def filled(folder, features, dtype='float32'):
    index = FeatureIndex.create(folder, {'of': 'x'}, features.shape[1], dtype)
    for start in range(0, len(features), 7):
        part = features[start : start + 7]
        index.append(part, [{'file': f'{start + i}.jpg'} for i in range(len(part))])
    index.close()
    return FeatureIndex.open(folder)


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_search_is_a_matrix_product(tmp_path, dtype):
    features = rows(200)
    index = filled(tmp_path / 'i', features, dtype)
    stored = features.astype(dtype).astype(np.float64)
    for query in rows(5, seed=1):
        found, scores = index.search(query, 10)
        products = stored @ query.astype(np.float64)
        np.testing.assert_array_equal(found, np.argsort(-products, kind='stable')[:10])
        np.testing.assert_allclose(scores, np.sort(products)[::-1][:10], atol=1e-12)
    assert len(index.search(query, 1000)[0]) == 200


def test_equal_rows_are_in_order(tmp_path):
    features = rows(100)
    features[[3, 50, 99, 98]] = features[3]
    index = filled(tmp_path / 'i', features)
    assert index.search(features[3], 4)[0].tolist() == [3, 50, 98, 99]
    assert index.search(features[3], 2)[0].tolist() == [3, 50]


def test_appending_and_dropping(tmp_path):
    features = rows(20)
    index = filled(tmp_path / 'i', features)
    index.append(rows(1, seed=2), [{'file': 'new.jpg'}], dropped=[4, 5])
    index.close()
    opened = FeatureIndex.open(tmp_path / 'i')
    assert len(opened) == 19 and opened.items[20] == {'file': 'new.jpg'} and opened.head['of'] == 'x'
    assert not {4, 5} & set(opened.search(features[4], 100)[0].tolist())
    with pytest.raises(ValueError, match=r'shape \(1, 3\); expected \(1, 24\)'):
        opened.append(np.zeros((1, 3), np.float32), [{'file': 'a'}])


def test_a_kill_loses_nothing_finished(tmp_path):
    features = rows(30)
    filled(tmp_path / 'i', features[:10])

    def run():
        index = FeatureIndex.open(tmp_path / 'i')
        index.append(features[10:20], [{'file': str(i)} for i in range(10, 20)])
        # the next part is half written
        lines = index._files[1]
        index._files[0].write(features[20:23].tobytes() + b'xyz')
        lines.write(b'{"file": "20"}\n{"fi')
        for file in index._files:
            file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    assert forks.wait([forks.start(run)]) == [-signal.SIGKILL]
    index = FeatureIndex.open(tmp_path / 'i')
    assert len(index) == 21
    index.append(features[21:30], [{'file': str(i)} for i in range(21, 30)])
    index.close()
    opened = FeatureIndex.open(tmp_path / 'i')
    np.testing.assert_array_equal(opened.features, features)
    assert [item['file'] for item in opened.items[10:]] == [str(i) for i in range(10, 30)]


def test_damaged_and_foreign_folders(tmp_path):
    with pytest.raises(UsageError, match='has no index.json'):
        FeatureIndex.open(tmp_path)
    (tmp_path / 'photo.jpg').write_bytes(b'')
    with pytest.raises(UsageError, match='no index and not empty'):
        FeatureIndex.create(tmp_path, {}, 3)
    with pytest.raises(UsageError, match="dtype is 'int8'"):
        FeatureIndex.create(tmp_path / 'new', {}, 3, 'int8')
    folder = tmp_path / 'i'
    filled(folder, rows(5))
    head = json.loads((folder / 'index.json').read_text())
    (folder / 'index.json').write_text(json.dumps({**head, 'version': 9}))
    with pytest.raises(UsageError, match='version 9, expected 1'):
        FeatureIndex.open(folder)
    (folder / 'index.json').write_text(json.dumps(head))
    good = (folder / 'items.jsonl').read_bytes()
    for bad, words in (
        (b'nonsense\n', 'line 6, cannot be read'),
        (b'{"drop": 7}\n', 'drops row 7'),
        (b'3\n', 'line 6'),
    ):
        (folder / 'items.jsonl').write_bytes(good + bad)
        with pytest.raises(DataError, match=words):
            FeatureIndex.open(folder)
    (folder / 'items.jsonl').write_bytes(good)
    os.truncate(folder / 'features.bin', 50)
    with pytest.raises(DataError, match='5 items'):
        FeatureIndex.open(folder)


def near_rows(count=600, seed=0):
    """Points around 20 centres, as features of pictures are."""
    x = 0.4 * rows(count, seed=seed) + rows(20, seed=9)[np.arange(count) % 20]
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_approximate_search_scores_exactly_and_follows_the_features(tmp_path):
    pytest.importorskip('faiss')
    features = near_rows()
    index = filled(tmp_path / 'i', features)
    for query in near_rows(5, seed=1):
        found, scores = index.search(query, 10, False)
        right = index.search(query, 10, True)[0]
        assert len(set(found) & set(right)) >= 9
        np.testing.assert_allclose(scores, features[found].astype(np.float64) @ query, atol=1e-12)
    dropped = index.search(query, 5, False)[0]
    index.append(query[None], [{'file': 'new.jpg'}], dropped.tolist())
    index.close()
    again = FeatureIndex.open(tmp_path / 'i').search(query, 5, False)[0]
    assert again[0] == 600 and not set(dropped) & set(again)
    index.append(np.empty((0, 24), np.float32), [], [row for row in range(600) if index.alive[row] and row % 40])
    assert len(index.search(query, 12, False)[0]) == 12


@pytest.mark.parametrize('damage', ['cut', 'bytes', 'other features', 'empty head', 'head of another kind'])
def test_graph_that_does_not_fit_is_built_again(tmp_path, damage):
    pytest.importorskip('faiss')
    features, query = near_rows(), near_rows(1, seed=1)[0]
    folder = tmp_path / 'i'
    filled(folder, features).search(query, 5, False)
    graph = (folder / 'search.faiss').read_bytes()
    middle = len(graph) // 2
    if damage == 'cut':
        (folder / 'search.faiss').write_bytes(graph[:-100])
    elif damage == 'bytes':
        (folder / 'search.faiss').write_bytes(graph[:middle] + b'\x00' * 8 + graph[middle + 8 :])
    elif damage == 'other features':
        features = features[::-1].copy()
        (folder / 'features.bin').write_bytes(features.tobytes())
    else:
        (folder / 'search.json').write_text('' if damage == 'empty head' else '[1]')
    damaged = (folder / 'search.faiss').read_bytes()
    index = FeatureIndex.open(folder)
    found, scores = index.search(query, 5, False)
    assert damaged == graph or (folder / 'search.faiss').read_bytes() != damaged
    np.testing.assert_array_equal(found, index.search(query, 5, True)[0])
    np.testing.assert_allclose(scores, features[found].astype(np.float64) @ query, atol=1e-12)


def test_size_chooses_and_without_faiss_search_is_exact(tmp_path, monkeypatch, caplog):
    from florence_mm.formats import approximate, feature_index

    monkeypatch.setattr(feature_index, 'EXACT_UP_TO', 100)
    monkeypatch.setattr(approximate.importlib.util, 'find_spec', lambda name: None)
    said = []
    monkeypatch.setattr(approximate, 'print_log', lambda text, *rest: said.append(text))
    query = rows(1, seed=1)[0]
    for count in (100, 101):
        features = rows(count)
        found = filled(tmp_path / str(count), features).search(query, 3)[0]
        np.testing.assert_array_equal(found, np.argsort(-(features.astype(np.float64) @ query))[:3])
        assert len(said) == (count > 100) and not (tmp_path / str(count) / 'search.faiss').exists()
    assert "pip install 'florence_mm[search]'" in said[0]


def test_of_two_writers_one_is_refused(tmp_path):
    first = FeatureIndex.create(tmp_path / 'i', {}, 2)
    second = FeatureIndex.open(tmp_path / 'i')
    first.append(np.eye(2, dtype=np.float32), [{'file': 'a'}, {'file': 'b'}])
    for _ in range(2):  # while the first writes, and when it has ended
        with pytest.raises(UsageError, match='another process writes to the index'):
            second.append(np.eye(2, dtype=np.float32), [{'file': 'c'}, {'file': 'd'}])
        first.close()
    assert [item['file'] for item in FeatureIndex.open(tmp_path / 'i').items] == ['a', 'b']
    first.append(np.eye(2, dtype=np.float32)[:1], [{'file': 'e'}])  # the one that has all of it goes on
    assert len(FeatureIndex.open(tmp_path / 'i')) == 3
