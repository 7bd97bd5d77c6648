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
