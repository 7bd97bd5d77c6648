import itertools
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from florence_mm.engine import samplers
from florence_mm.engine.dataloading import SeededDataset, resumable, start_loader_at
from florence_mm.engine.samplers import ResumableSampler, SeededSampler, SkippingBatchSampler
from florence_mm.engine.seeding import combine_seeds, seed_step
from florence_mm.utils.seeded import SeededIndex


def ranks(monkeypatch, world, make):
    """The sampler of each rank."""
    made = []
    for rank in range(world):
        monkeypatch.setattr(samplers, 'get_dist_info', lambda rank=rank: (rank, world))
        made.append(make())
    return made


def pairs(sampler, count=None):
    return [(int(index), index.seed) for index in itertools.islice(sampler, count)]


def interleaved(lists):
    return [item for group in itertools.zip_longest(*lists) for item in group if item is not None]


def test_combine_seeds():
    assert combine_seeds(1, 2) != combine_seeds(2, 1)
    assert combine_seeds(1, 2) == combine_seeds(1, 2) < 2**63
    assert len({combine_seeds(7, 1, i) for i in range(10_000)}) == 10_000


@pytest.mark.parametrize('world', [1, 2, 3])
@pytest.mark.parametrize('infinite', [False, True])
def test_ranks_together_draw_what_one_process_draws(monkeypatch, world, infinite):
    (single,) = ranks(monkeypatch, 1, lambda: ResumableSampler(range(12), seed=5, infinite=infinite))
    several = ranks(monkeypatch, world, lambda: ResumableSampler(range(12), seed=5, infinite=infinite))
    for epoch in (0, 3):
        for sampler in [single, *several]:
            sampler.set_epoch(epoch)
        whole = pairs(single, 36)
        assert interleaved([pairs(s, 36 // world) for s in several]) == whole
        # every epoch has each sample once, and no two draws share a seed
        assert sorted(index for index, _ in whole[:12]) == list(range(12))
        assert len({seed for _, seed in whole}) == len(whole)


def test_rounding_up(monkeypatch):
    make = [lambda up=up: ResumableSampler(range(7), shuffle=False, seed=0, round_up=up) for up in (True, False)]
    up, down = (ranks(monkeypatch, 3, one) for one in make)
    assert [[i for i, _ in pairs(s)] for s in up] == [[0, 3, 6], [1, 4, 0], [2, 5, 1]]
    assert [[i for i, _ in pairs(s)] for s in down] == [[0, 3, 6], [1, 4], [2, 5]]
    assert [len(s) for s in up] == [3, 3, 3] and [len(s) for s in down] == [3, 2, 2]


@pytest.mark.parametrize('infinite', [False, True])
def test_start_at_is_a_pass_cut_off_and_used_once(infinite):
    sampler = ResumableSampler(range(10), seed=1, infinite=infinite)
    whole = pairs(sampler, 25)
    sampler.start_at(7)
    assert pairs(sampler, 25 - 7) == whole[7:]
    assert pairs(sampler, 25) == whole


def test_a_far_start_costs_nothing():
    sampler = ResumableSampler(range(10), seed=1, infinite=True)
    sampler.start_at(10**15 + 3)
    # position 3 of epoch 10^14, whichever sample that is
    assert pairs(sampler, 7)[-1][0] in range(10)


def test_seeds_and_orders_differ_by_seed_and_epoch():
    one, two = ResumableSampler(range(50), seed=1), ResumableSampler(range(50), seed=2)
    assert pairs(one) != pairs(two)
    first = pairs(one)
    one.set_epoch(1)
    assert [i for i, _ in pairs(one)] != [i for i, _ in first]
    assert not {s for _, s in pairs(one)} & {s for _, s in first}
    with pytest.raises(ValueError, match='has no samples'):
        ResumableSampler([])


class Halves(torch.utils.data.Sampler):
    """A sampler of another package: first even, then odd indices; takes a seed and an epoch."""

    def __init__(self, dataset, seed=None):
        self.dataset, self.seed, self.epoch = dataset, seed, 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        size = len(self.dataset)
        yield from [*range(self.epoch % 2, size, 2), *range(1 - self.epoch % 2, size, 2)]

    def __len__(self):
        return len(self.dataset)


def test_another_packages_sampler():
    sampler = SeededSampler({'type': Halves}, dataset=range(6), seed=9)
    assert sampler.inner.seed == 9 and len(sampler) == 6
    whole = pairs(sampler)
    assert [i for i, _ in whole] == [0, 2, 4, 1, 3, 5]
    sampler.start_at(4)
    assert pairs(sampler) == whole[4:]
    sampler.set_epoch(1)
    assert [i for i, _ in pairs(sampler)] == [1, 3, 5, 0, 2, 4]
    assert not {s for _, s in pairs(sampler)} & {s for _, s in whole}
    sampler.seed = 10
    assert sampler.inner.seed == 10


class Pairs(torch.utils.data.Sampler):
    """A batch sampler of another package that carries state: batches of one parity."""

    def __init__(self, sampler, batch_size):
        self.sampler, self.batch_size = sampler, batch_size

    def __iter__(self):
        waiting = {0: [], 1: []}
        for index in self.sampler:
            waiting[index % 2].append(index)
            if len(waiting[index % 2]) == self.batch_size:
                yield waiting[index % 2]
                waiting[index % 2] = []

    def __len__(self):
        return len(self.sampler) // self.batch_size


def test_another_packages_batch_sampler():
    sampler = ResumableSampler(range(20), seed=3)
    batches = SkippingBatchSampler({'type': Pairs}, sampler, 2)
    whole = [pairs(batch) for batch in batches]
    assert len(whole) == len(batches) == 10
    batches.start_at(4)
    assert [pairs(batch) for batch in batches] == whole[4:]
    assert len(list(batches)) == 10


class Noisy(torch.utils.data.Dataset):
    def __init__(self):
        self.pipeline = 'first'

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return int(index), float(np.random.rand()), float(torch.rand(()))


def test_seeded_dataset():
    dataset = SeededDataset(Noisy())
    a, b = SeededIndex(3, 100), SeededIndex(3, 101)
    assert dataset[a] == dataset[a] != dataset[b]
    assert dataset[3] != dataset[3]  # an index without a seed leaves the generators alone
    # hooks of other packages exchange the pipeline of the data set they see
    dataset.pipeline = 'second'
    assert dataset._seeded.pipeline == dataset.pipeline == 'second'
    assert pickle.loads(pickle.dumps(dataset)).pipeline == 'second'
    with pytest.raises(AttributeError):
        dataset.missing  # noqa: B018


def test_step_seeds():
    def draw(*where):
        seed_step(*where)
        return torch.rand(3).tolist(), np.random.rand()

    assert draw(1, 2, 0) == draw(1, 2, 0)
    assert len({str(draw(*where)) for where in ((1, 2, 0), (1, 3, 0), (1, 2, 1), (2, 2, 0))}) == 4


def build(sampler, **loader):
    cfg = resumable(dict(dataset=Noisy(), sampler=sampler, **loader), infinite=False)
    from mmengine.runner import Runner

    return Runner.build_dataloader(dict(cfg, batch_size=2, num_workers=0), seed=4)


def test_mmengines_samplers_are_exchanged():
    for name in ('DefaultSampler', 'mmengine.InfiniteSampler', 'florence_mm.ResumableSampler'):
        loader = build({'type': name, 'shuffle': True})
        assert type(loader.sampler) is ResumableSampler and not loader.sampler.infinite
        assert loader.sampler.seed == 4


@pytest.mark.parametrize('batch_sampler', [None, {'type': Pairs}])
@pytest.mark.parametrize('sampler', [{'type': 'DefaultSampler', 'shuffle': True}, {'type': Halves}])
def test_a_loader_starts_anywhere(sampler, batch_sampler):
    loader = build(sampler, batch_sampler=batch_sampler)
    whole = list(start_loader_at(loader, seed=8, batch=0, epoch=2))
    assert list(start_loader_at(loader, seed=8, batch=3, epoch=2)) == whole[3:] != []
    assert list(start_loader_at(loader, seed=9, batch=3, epoch=2)) != whole[3:]


def test_a_ready_made_loader_is_read_up_to_the_place():
    loader = DataLoader(range(10), batch_size=3)
    assert [batch.tolist() for batch in start_loader_at(loader, 0, batch=2)] == [[6, 7, 8], [9]]
