"""A cache of shards of a store that fails, stalls, cuts or changes what it gives."""

import multiprocessing
import os
import pickle
import threading
import time

import numpy as np
import pytest
from broken_store import Broken

from florence_mm.errors import UsageError
from florence_mm.formats.open_shards import OpenShards
from florence_mm.formats.shard_cache import ShardCache
from florence_mm.formats.shard_store import Store
from florence_mm.formats.shards import index_path, write_set, write_shard
from florence_mm.utils.files import temporary_name
from florence_mm.utils.locks import try_lock

SHARDS = 4


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """A set of four shards of the same size, in a store that works."""
    Broken.begin(monkeypatch, tmp_path / 'log')
    for number in range(SHARDS):
        samples = ((f'{one}', {'jpg': bytes([number, 9]) * 450, 'txt': b'a text'}) for one in range(5))
        write_shard(tmp_path / 'set' / f'{number}.tar', samples)
    return write_set(tmp_path / 'set')


@pytest.fixture
def make(shards, tmp_path):
    def make(max_bytes=10**6, retries=2, seconds=5.0, pause=0.01):
        store = Store(f'broken://{tmp_path}/set', {}, retries, seconds, pause)
        return ShardCache(store, tmp_path / 'cache', max_bytes)

    return make


def content(path):
    return path.read_bytes()


def test_a_shard_is_fetched_once_with_its_index(make, shards, tmp_path):
    cache = make()
    for _ in range(3):
        path = cache.get(shards[1])
    assert content(path) == content(tmp_path / 'set' / '1.tar')
    assert content(index_path(path)) == content(tmp_path / 'set' / '1.index.npy')
    assert Broken.log.read_text() == '1.tar\n'
    assert pickle.loads(pickle.dumps(cache)).get(shards[1]) == path


@pytest.mark.parametrize('plan', [('error', 'error'), ('cut', 'change'), ('stall', 'error')])
def test_two_failures_are_tried_again(make, shards, tmp_path, monkeypatch, plan):
    monkeypatch.setattr(Broken, 'plan', plan)
    path = make(seconds=0.3).get(shards[2])
    assert content(path) == content(tmp_path / 'set' / '2.tar')
    assert Broken.log.read_text() == '2.tar\n' * 3


@pytest.mark.parametrize(
    ('fault', 'reason'),
    [
        ('error', 'ConnectionError: the store is busy'),
        ('cut', r'it gave 1500 of \d+ bytes'),
        ('change', 'its content is not that of the set: the digest in index.json is another'),
        ('stall', 'it stalled for 0.2 s after 1000 bytes'),
    ],
)
def test_after_the_last_attempt_one_sentence(make, shards, tmp_path, monkeypatch, fault, reason):
    monkeypatch.setattr(Broken, 'plan', (fault,) * 3)
    cache = make(seconds=0.2)
    with pytest.raises(UsageError, match=rf'broken://.*/0\.tar cannot be fetched: {reason} .3 attempts in '):
        cache.get(shards[0])
    assert not cache.path(shards[0]).exists()
    assert not [path for path in (tmp_path / 'cache').iterdir() if path.name.endswith(('.tmp', '.tar'))]
    # and the store is asked again as soon as it works
    assert content(cache.get(shards[0])) == content(tmp_path / 'set' / '0.tar')


def test_a_missing_shard_or_set(make, shards, tmp_path):
    (tmp_path / 'set' / '3.tar').unlink()
    with pytest.raises(UsageError, match=r'3\.tar cannot be fetched: there is no such file .3 attempts'):
        make().get(shards[3])
    with pytest.raises(UsageError, match=r'nothing/index\.json cannot be fetched: there is no such file .1 attempts'):
        Store(f'broken://{tmp_path}/nothing', retries=0).read('index.json')
    with pytest.raises(UsageError, match=r'nowhere://a/index\.json cannot be fetched: ValueError: .*nowhere.* .1 att'):
        Store('nowhere://a', retries=9).read('index.json')


def test_the_shards_used_least_recently_make_room(make, shards):
    size = shards[0].bytes + 1024  # with its index
    cache = make(max_bytes=2 * size)
    for number in (0, 1, 0, 2):
        time.sleep(0.01)
        cache.get(shards[number])
    assert [cache.path(shards[number]).exists() for number in range(SHARDS)] == [True, False, True, False]
    assert [index_path(cache.path(shards[number])).exists() for number in range(SHARDS)] == [True, False, True, False]
    assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= 2 * size
    with pytest.raises(UsageError, match=rf'3\.tar has {shards[3].bytes} bytes, more than the 100 of .*max_gb'):
        make(max_bytes=100).get(shards[3])


def test_what_a_killed_process_has_left_is_removed(make, shards, monkeypatch):
    cache = make()
    cache.folder.mkdir()
    left = temporary_name(cache.folder / 'abc.tar')
    left.write_bytes(b'half')
    os.utime(left, (1, 1))
    with left.open('rb') as file:
        assert try_lock(file.fileno())  # as long as it is written
        cache.get(shards[0])
        assert left.exists()
    cache.get(shards[1])
    assert not left.exists()


def test_fetching_ahead(make, shards, monkeypatch):
    cache = make()
    monkeypatch.setattr(Broken, 'plan', ('slow',) * 4)
    cache.fetch_ahead([shards[number] for number in (0, 1, 2)])
    cache.get(shards[1])  # waits for the thread that fetches it
    for thread in cache._threads:
        thread.join()
    assert sorted(Broken.log.read_text().split()) == ['0.tar', '1.tar', '2.tar']
    cache.fetch_ahead([shards[0]])
    assert not cache._wanted


def _read_all(cache, shards, order, results):
    try:
        for number in order:
            data = cache.get(shards[number]).read_bytes()
            results.put((number, data[512]))
    except FileNotFoundError:
        results.put('removed')


def test_several_processes_share_a_cache(make, shards):
    results = multiprocessing.get_context('fork').Queue()
    cache = make()
    orders = [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)]
    started = [
        multiprocessing.get_context('fork').Process(target=_read_all, args=(cache, shards, order, results))
        for order in orders
    ]
    for process in started:
        process.start()
    found = [results.get(timeout=60) for _ in range(12)]
    for process in started:
        process.join()
    assert sorted(found) == sorted([(number, number) for number in range(SHARDS)] * 3)
    assert sorted(Broken.log.read_text().split()) == [f'{number}.tar' for number in range(SHARDS)]


def test_files_that_another_process_removes_while_they_are_opened_are_fetched_again(make, shards, monkeypatch):
    cache, load, loads = make(), np.load, []

    def removed_first(path, *args, **kwargs):
        loads.append(path)
        if len(loads) == 1:  # as another process does that needs room
            path.unlink()
            cache.path(shards[2]).unlink()
        return load(path, *args, **kwargs)

    monkeypatch.setattr(np, 'load', removed_first)
    found = OpenShards(shards, cache).read(2, 0)
    assert (found.shard, len(loads)) == (shards[2], 2)
    assert Broken.log.read_text().split() == ['2.tar'] * 2


def test_a_killed_process_leaves_no_lock(make, shards, monkeypatch):
    monkeypatch.setattr(Broken, 'plan', ('stall',))
    cache = make(seconds=60)
    process = multiprocessing.get_context('fork').Process(target=cache.get, args=(shards[0],))
    process.start()
    deadline = time.monotonic() + 20
    while not Broken.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.join()
    start = time.monotonic()
    assert cache.get(shards[0]).stat().st_size == shards[0].bytes
    assert time.monotonic() - start < 10


def test_threads_of_one_process_fetch_once(make, shards):
    cache = make()
    threads = [threading.Thread(target=cache.get, args=(shards[0],)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Broken.log.read_text() == '0.tar\n'
