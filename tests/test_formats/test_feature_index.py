"""An index of features: search is a plain matrix product, and a kill loses nothing finished."""

import json
import os
import resource
import signal

import forks
import numpy as np
import pytest

from florence_mm.errors import DataError, UsageError
from florence_mm.formats import index_files
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
        with (tmp_path / 'i/features.bin').open('ab') as part, (tmp_path / 'i/items.jsonl').open('ab') as lines:
            part.write(features[20:23].tobytes() + b'xyz')
            lines.write(b'{"file": "20"}\n{"fi')
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
        (b'[' * 100_000 + b'\n', 'line 6, cannot be read'),
    ):
        (folder / 'items.jsonl').write_bytes(good + bad)
        with pytest.raises(DataError, match=words):
            FeatureIndex.open(folder)
    (folder / 'items.jsonl').unlink()  # without which the rows would be taken for half written, and cut off
    with pytest.raises(DataError, match='items.jsonl is missing, and features.bin beside it has 5 rows'):
        FeatureIndex.open(folder)
    (folder / 'items.jsonl').write_bytes(good)
    os.truncate(folder / 'features.bin', 50)
    with pytest.raises(DataError, match='5 items'):
        FeatureIndex.open(folder)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_search_refuses_rows_that_are_no_numbers(tmp_path, value):
    features = rows(5)
    index = filled(tmp_path / 'i', features)
    with pytest.raises(DataError, match=r'features 24 wide, and the query has shape \(12,\)'):
        index.search(features[0, :12], 2)
    features[3, 1] = value
    (tmp_path / 'i' / 'features.bin').write_bytes(features.tobytes())
    with pytest.raises(DataError, match='row 3 of .*features.bin has no finite product'):
        FeatureIndex.open(tmp_path / 'i').search(features[0], 2)


def test_an_index_that_is_compacted_while_it_is_opened(tmp_path, monkeypatch):
    folder = tmp_path / 'i'
    filled(folder, rows(8))
    read, met = index_files.items_path, []

    def compacted_first(*where):
        if not met:
            met.append('the reader')
            other = FeatureIndex.open(folder)
            other.append(rows(0), [], [0, 1, 2])
            path = read(*where)
            other.compact()
            return path
        return read(*where)

    monkeypatch.setattr(index_files, 'items_path', compacted_first)
    opened = FeatureIndex.open(folder)
    assert met and [item['file'] for item in opened.items] == [f'{i}.jpg' for i in range(3, 8)]
    np.testing.assert_array_equal(opened.features, rows(8)[3:])


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


@pytest.mark.parametrize('dtype', ['float32', 'float16'])
def test_compaction_leaves_what_counts_in_its_order(tmp_path, dtype):
    features, folder = rows(40), tmp_path / 'i'
    index = filled(folder, features, dtype)
    open_before = FeatureIndex.open(folder)
    query = rows(1, seed=1)[0]
    index.append(np.empty((0, 24), np.float32), [], range(0, 40, 5))
    index.tidy()  # 8 of 40 no longer count
    assert sorted(path.name for path in folder.iterdir()) == ['features.bin', 'index.json', 'items.jsonl']
    index.append(rows(1, seed=2), [{'file': 'new.jpg'}], [1, 2, 3])
    expected = [index.items[row] for row in index.search(query, 99)[0]]
    index.tidy()  # 11 of 41
    assert sorted(path.name for path in folder.iterdir()) == ['features-1.bin', 'index.json', 'items-1.jsonl']
    assert (folder / 'features-1.bin').stat().st_size == 30 * 24 * np.dtype(dtype).itemsize
    for again in (index, FeatureIndex.open(folder)):
        assert len(again) == len(again.items) == 30 and again.items[-1] == {'file': 'new.jpg'}
        assert [again.items[row] for row in again.search(query, 99)[0]] == expected
    for use in (lambda: open_before.append(features[:1], [{'file': 'a'}]), lambda: open_before.search(query, 3)):
        with pytest.raises(UsageError, match='another process writes|has been written again since it was opened'):
            use()
    index.append(features[:2], [{'file': 'x'}, {'file': 'y'}], range(20))
    index.compact()
    assert sorted(path.name for path in folder.iterdir()) == ['features-2.bin', 'index.json', 'items-2.jsonl']
    np.testing.assert_array_equal(FeatureIndex.open(folder).features[-2:], features[:2].astype(dtype))


def test_a_kill_while_compacting_leaves_the_old_index_or_the_new_one(tmp_path):
    from florence_mm.utils import files

    features, kept = rows(20), []
    for number in range(12):  # the number of renames and removals at which it is killed
        folder = tmp_path / str(number)
        filled(folder, features).close()

        def run(folder=folder, number=number):
            left = [number]

            def counted(own):
                def call(*args, **kwargs):
                    left[0] -= 1
                    if left[0] < 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    return own(*args, **kwargs)

                return call

            files.Path.replace, files.Path.unlink = counted(files.Path.replace), counted(files.Path.unlink)
            index = FeatureIndex.open(folder)
            index.append(np.empty((0, 24), np.float32), [], [3, 4])
            index.compact()

        forks.wait([forks.start(run)])
        index = FeatureIndex.open(folder)
        assert len(index) == 18 and [item['file'] for item in index.items if item['file'] in ('3.jpg', '5.jpg')]
        np.testing.assert_array_equal(index.features[index.alive], np.delete(features, [3, 4], 0))
        kept.append(len(index.items))
        index.append(features[:1], [{'file': 'z'}])
        index.compact()
        assert len([*folder.iterdir()]) == 3
    assert kept[0] == 20 and kept[-1] == 18


def limited(size, run):
    """Run in a fork whose files may not be larger than ``size`` bytes, as on a disk that is full."""

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        run()

    return forks.wait([forks.start(work)])


@pytest.mark.parametrize('size', [20 * 96 + 50, 25 * 96])
def test_a_full_disk_keeps_what_was_appended(tmp_path, size):
    features, folder = rows(40), tmp_path / 'i'
    filled(folder, features[:10])
    long = 'x' * (80 if size == 20 * 96 + 50 else 200)  # either the rows or the lines do not fit

    def run():
        index = FeatureIndex.open(folder)
        index.append(features[10:15], [{'file': long} for _ in range(5)])
        for _ in range(2):  # again, as an indexing that ends does
            with pytest.raises(UsageError, match=f'the index {folder} cannot be written .File too large.; it keeps'):
                index.append(features[15:25], [{'file': long} for _ in range(10)], dropped=[0])
        index.close()
        index = FeatureIndex.open(folder)
        assert len(index) == len(index.items) == 15
        index.append(np.empty((0, 24), np.float32), [], range(8))
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
        index.tidy()  # says that it could not
        assert len(FeatureIndex.open(folder)) == 7

    assert limited(size, run) == [0]
    assert sorted(path.name for path in folder.iterdir()) == ['features.bin', 'index.json', 'items.jsonl']
    index = FeatureIndex.open(folder)
    np.testing.assert_array_equal(index.features, features[:15])
    index.append(features[15:], [{'file': 'b'}] * 25)
    assert len(FeatureIndex.open(folder)) == 32


def test_the_graph_is_built_when_an_index_is_tidied(tmp_path, monkeypatch):
    pytest.importorskip('faiss')
    from florence_mm.formats import approximate, feature_index

    monkeypatch.setattr(feature_index, 'EXACT_UP_TO', 500)
    features, folder = near_rows(), tmp_path / 'i'
    index = filled(folder, features)
    index.tidy()
    before = (folder / 'search.faiss').read_bytes()
    monkeypatch.setattr(approximate, '_add', lambda *rest: pytest.fail('the graph was built by a search'))
    query = near_rows(1, seed=1)[0]
    np.testing.assert_array_equal(FeatureIndex.open(folder).search(query, 3)[0], index.search(query, 3, True)[0])
    monkeypatch.undo()
    monkeypatch.setattr(feature_index, 'EXACT_UP_TO', 500)
    index.append(np.empty((0, 24), np.float32), [], range(200))
    index.compact()
    assert not (folder / 'search.faiss').exists() and len(before) > 0
    assert index.search(query, 3)[0].max() < 400

    def run():  # the graph is larger than the features, and the index is whole without it
        FeatureIndex.open(folder).search(query, 3, False)

    assert limited(len(before) // 3, run) == [0] and not (folder / 'search.faiss').exists()
