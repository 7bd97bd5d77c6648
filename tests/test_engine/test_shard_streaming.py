"""Shards of a store under the samplers: each sample once, resuming exactly, and no epoch that is short."""

import json

import pytest
from broken_store import Broken
from torch.utils.data import DataLoader

from florence_mm.datasets import ImageTextManifest, ImageTextShards, WeightedMixture
from florence_mm.engine import samplers
from florence_mm.engine.dataloading import SeededDataset, start_loader_at
from florence_mm.engine.samplers import ResumableSampler
from florence_mm.errors import UsageError, user_sentence
from florence_mm.formats.shards import write_set, write_shard

SHARDS, SAMPLES = 9, 4
SIZE = SHARDS * SAMPLES


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A set of nine shards in a store, of which the cache holds four, with their indexes."""
    Broken.begin(monkeypatch, tmp_path / 'log')
    for shard in range(SHARDS):
        samples = (
            (f'{number}', {'jpg': b'x' * 100, 'json': json.dumps({'text': f'{number}'}).encode()})
            for number in range(SAMPLES * shard, SAMPLES * shard + SAMPLES)
        )
        write_shard(tmp_path / 'set' / f'{shard}.tar', samples)
    write_set(tmp_path / 'set')
    return tmp_path / 'set'


def streamed(folder, **options):
    cache = dict(folder=str(folder.parent / 'cache'), max_gb=4 * 11e3 / 1e9, seconds=5, **options)
    return ImageTextShards(f'broken://{folder}', cache=cache, block=2)


def numbers(batch):
    return [int(sample['text']) for sample in batch]


def described(batch):
    return [(sample['text'], sample.get('gt_label')) for sample in batch]


def drawn(monkeypatch, dataset, world, first, batches, workers=0, size=2):
    """Samples of some batches from draw ``first`` on, in the order of draws."""
    each = []
    for rank in range(world):
        monkeypatch.setattr(samplers, 'get_dist_info', lambda rank=rank: (rank, world))
        sampler = ResumableSampler(dataset, seed=3, infinite=True)
        loader = DataLoader(
            SeededDataset(dataset), batch_size=size, sampler=sampler, num_workers=workers, collate_fn=numbers
        )
        stream = start_loader_at(loader, 3, 0, draw=first)
        each.append([one for _ in range(batches) for one in next(stream)])
        del stream
    return [one for group in zip(*each, strict=True) for one in group]


@pytest.mark.parametrize('workers', [0, 1, 3])
def test_a_run_goes_on_with_other_ranks_and_workers(folder, monkeypatch, workers):
    whole = drawn(monkeypatch, ImageTextShards(str(folder), block=2), 1, 0, SIZE)  # two epochs of a local set
    assert sorted(whole[:SIZE]) == sorted(whole[SIZE:]) == list(range(SIZE)) and whole[:SIZE] != whole[SIZE:]
    dataset, first = streamed(folder), 0
    for world, batches in ((1, 6), (2, 6), (3, 6)):
        found = drawn(monkeypatch, dataset, world, first, batches, workers)
        assert found == whole[first : first + len(found)]
        first += len(found)
    assert first == 2 * SIZE
    cached = list((folder.parent / 'cache').glob('*.tar'))
    assert 2 <= len(cached) <= 4


@pytest.mark.parametrize('workers', [0, 1, 3])
def test_a_mixture_with_classes_goes_on_with_other_ranks_and_batches(folder, tmp_path, monkeypatch, workers):
    """Texts of shards in a store beside class-labelled ones of a manifest: each once an epoch, however it is cut."""
    rows = [json.dumps({'image': f'{number}.jpg', 'class': f'class {number % 3}'}) for number in range(SIZE // 2)]
    (tmp_path / 'classes.jsonl').write_text('\n'.join(rows))
    classes = ImageTextManifest(str(tmp_path / 'classes.jsonl'), classes=[f'class {number}' for number in range(3)])

    def mixed(shards):
        sets = [{'dataset': shards, 'weight': 2}, {'dataset': classes, 'weight': 1}]
        return WeightedMixture(sets, epoch_size=SIZE * 3 // 2)

    monkeypatch.setattr(f'{__name__}.numbers', described)
    whole = drawn(monkeypatch, mixed(ImageTextShards(str(folder), block=2)), 1, 0, SIZE * 3 // 4)
    expected = [(f'{number}', None) for number in range(SIZE)]
    expected += [(f'class {number % 3}', number % 3) for number in range(SIZE // 2)]
    assert sorted(whole, key=str) == sorted(expected, key=str)
    dataset, first = mixed(streamed(folder)), 0
    for world, batches, size in ((1, 6, 2), (2, 3, 3), (3, 2, 4)):
        found = drawn(monkeypatch, dataset, world, first, batches, workers, size)
        assert found == whole[first : first + len(found)]
        first += len(found)
    assert first == len(whole)


def test_faults_that_pass_change_nothing(folder, monkeypatch):
    whole = drawn(monkeypatch, ImageTextShards(str(folder), block=2), 1, 0, SIZE // 2)
    monkeypatch.setattr(Broken, 'plan', ('cut', 'none', 'error', 'change'))
    assert drawn(monkeypatch, streamed(folder), 1, 0, SIZE // 2) == whole


@pytest.mark.parametrize('workers', [0, 2])
def test_a_shard_that_stays_cut_ends_the_run_with_a_sentence(folder, monkeypatch, workers):
    path = folder / '4.tar'
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(UsageError) as caught:
        drawn(monkeypatch, streamed(folder, retries=0), 1, 0, SIZE // 2, workers)
    sentence = user_sentence(caught.value)
    assert sentence.startswith(f'broken://{folder}/4.tar cannot be fetched: it gave 3000 of 10240 bytes (1 attempts in')
    assert '\n' not in sentence and sentence.endswith('and go on with --resume')


def test_what_a_store_needs(folder):
    with pytest.raises(UsageError, match=r'two blocks of 9 shards have up to 0\.000\d+ GB, and cache\.max_gb is'):
        ImageTextShards(f'broken://{folder}', cache=dict(folder='a', max_gb=4e-5))
    (folder / 'index.json').unlink()
    with pytest.raises(UsageError, match=r'set/index\.json cannot be fetched: there is no such file'):
        streamed(folder, retries=0)
