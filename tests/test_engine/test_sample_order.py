"""Orders of samples: in blocks of shards, over ranks, workers and parts of mixtures."""

import itertools
from dataclasses import dataclass, field

import numpy as np
import pytest
from torch.utils.data import DataLoader
from toy_project import toy_config

from florence_mm.datasets import WeightedMixture
from florence_mm.datasets.order_parts import OrderPart, order_parts
from florence_mm.engine import samplers
from florence_mm.engine.dataloading import SeededDataset, start_loader_at
from florence_mm.engine.sample_order import BlockOrder
from florence_mm.engine.samplers import ResumableSampler
from florence_mm.errors import UsageError
from florence_mm.utils import permutation
from florence_mm.utils.permutation import KeyedPermutation

COUNTS = (5, 3, 8, 1, 4, 6, 2)  # samples of each shard


@dataclass
class Shards:
    """A data set whose samples are their numbers, in shards that are read in blocks."""

    counts: tuple = COUNTS
    block: int = 2
    fetched: list = field(default_factory=list)

    def __len__(self):
        return sum(self.counts)

    def __getitem__(self, number):
        return int(number)

    def order_parts(self):
        return [OrderPart(len(self), np.cumsum(self.counts), self.block, self.fetched.append)]

    def shard_of(self, number):
        return int(np.searchsorted(np.cumsum(self.counts), number, side='right'))


def ranks(monkeypatch, world, make):
    made = []
    for rank in range(world):
        monkeypatch.setattr(samplers, 'get_dist_info', lambda rank=rank: (rank, world))
        made.append(make())
    return made


def numbers(sampler, count=None):
    return [int(index) for index in itertools.islice(sampler, count)]


def test_a_block_has_the_samples_of_its_shards():
    data = Shards()
    order = BlockOrder(data.order_parts(), seed=3)
    assert order.blocks == 4 and len(order) == 29
    seen, place, shuffled = [], 0, 0
    firsts = np.cumsum((0, *COUNTS))
    for block in range(order.blocks):
        (shards,) = order.shards_of(block)
        assert 1 <= len(shards) <= 2
        size = sum(COUNTS[shard] for shard in shards)
        found = [order[place + number] for number in range(size)]
        assert {order.block_of(place + number) for number in range(size)} == {block}
        assert {data.shard_of(number) for number in found} == set(shards)
        assert len(set(found)) == size
        shuffled += found != [number for shard in shards for number in range(firsts[shard], firsts[shard + 1])]
        seen += found
        place += size
    assert sorted(seen) == list(range(29)) and shuffled >= 3
    assert seen != sorted(seen) and seen != [BlockOrder(data.order_parts(), seed=4)[one] for one in range(29)]


def test_all_shards_in_one_block_are_all_samples_shuffled():
    data = Shards(block=7)
    order = BlockOrder(data.order_parts(), seed=3)
    assert order.blocks == 1 and sorted(order[place] for place in range(29)) == list(range(29))


@pytest.mark.parametrize('infinite', [False, True])
@pytest.mark.parametrize('world', [1, 2, 3])
def test_ranks_together_draw_each_sample_once_an_epoch(monkeypatch, world, infinite):
    make = lambda: ResumableSampler(Shards(), seed=5, infinite=infinite, round_up=False)  # noqa: E731
    (single,) = ranks(monkeypatch, 1, make)
    whole = numbers(single, 58 if infinite else 29)
    assert sorted(whole[:29]) == list(range(29))
    each = [numbers(one, -(-len(whole) // world)) for one in ranks(monkeypatch, world, make)]
    together = [one for group in itertools.zip_longest(*each) for one in group if one is not None]
    assert together[: len(whole)] == whole
    if infinite:
        assert sorted(whole[29:]) == list(range(29)) and whole[29:] != whole[:29]


def test_the_next_blocks_shards_are_fetched_ahead():
    data = Shards()
    sampler = ResumableSampler(data, seed=5, infinite=True)
    stream = iter(sampler)
    for draw in range(29 * 2):
        number = int(next(stream))
        # the block's own shards and those of the next one, also across the end of an epoch
        assert data.shard_of(number) in data.fetched[-1], draw
        before = data.fetched[-2] if len(data.fetched) > 1 else data.fetched[-1]
        assert data.shard_of(number) in before, draw
    assert len(data.fetched) == 8


def test_a_mixture_has_its_share_of_each_part_in_each_block():
    shards = Shards(counts=(10,) * 12, block=3)
    mixture = WeightedMixture([dict(dataset=shards, weight=3), dict(dataset=Plain(10), weight=1)], epoch_size=160)
    parts = order_parts(SeededDataset(mixture))
    assert [part.size for part in parts] == [120, 40] and parts[1].ends is None
    order = BlockOrder(parts, seed=1)
    for block in range(4):
        found = [order[place] for place in range(40 * block, 40 * block + 40)]
        assert sum(number < 120 for number in found) == 30
        assert len({number // 10 for number in found if number < 120}) == 3
    assert sorted(order[place] for place in range(160)) == list(range(160))


@pytest.mark.parametrize('size', [7, 29, 60, 100])
def test_the_ends_of_shards_in_the_samples_of_a_mixture(size):
    shards = Shards()
    mixture = WeightedMixture([dict(dataset=shards, weight=1)], epoch_size=size)
    (part,) = mixture.order_parts()
    assert part.size == size == part.ends[-1] and part.fetch == shards.fetched.append
    if size >= 29:
        for slot in range(size):
            assert np.searchsorted(part.ends, slot, side='right') == shards.shard_of(mixture.locate(slot)[1])
    order = BlockOrder([part], seed=2)
    assert sorted(order[place] for place in range(size)) == list(range(size))


def test_a_mixture_in_a_mixture():
    inner = WeightedMixture([dict(dataset=Shards(), weight=29), dict(dataset=Plain(11), weight=11)])
    outer = WeightedMixture([dict(dataset=inner, weight=1)], epoch_size=53)
    parts = outer.order_parts()
    # the first of 53 samples that is row 29 of 40 is ceil(29 * 53 / 40) = 39
    assert [part.size for part in parts] == [39, 14] and parts[0].ends[-1] == 39 and parts[1].ends is None
    assert [outer.locate(slot)[1] for slot in (38, 39)] == [28, 29]


@dataclass
class Plain:
    """A data set whose samples are their numbers."""

    size: int

    def __len__(self):
        return self.size

    def __getitem__(self, number):
        return int(number)


class Sized(Plain):
    """A size alone."""


def test_orders_of_a_sampler(monkeypatch):
    drawn = numbers(ResumableSampler(Plain(50), seed=1))
    assert (
        drawn
        == numbers(ResumableSampler(Plain(50), seed=1, order='drawn'))
        == numbers(ResumableSampler(Shards((50,), 1), seed=1, order='drawn'))
    )
    keyed = numbers(ResumableSampler(Plain(50), seed=1, order='keyed'))
    assert keyed != drawn and sorted(keyed) == list(range(50))
    monkeypatch.setattr(permutation, 'LARGEST_DRAWN', 50)
    assert numbers(ResumableSampler(Plain(50), seed=1)) == keyed
    with pytest.raises(ValueError, match="order='random' must be one of 'auto', 'drawn', 'keyed'"):
        ResumableSampler(Plain(50), order='random')


def test_billions_of_samples_are_never_drawn(monkeypatch):
    monkeypatch.setattr(permutation.torch, 'randperm', None)
    sampler = ResumableSampler(Sized(900_000_000), seed=1, infinite=True)
    sampler.start_at(10**12)
    assert len(set(numbers(sampler, 100))) == 100
    assert isinstance(sampler._epoch_order(0), KeyedPermutation)


@pytest.mark.parametrize(('order', 'workers'), [('auto', 0), ('auto', 1), ('auto', 3), ('drawn', 0), ('keyed', 0)])
def test_a_run_resumes_exactly_on_other_ranks_and_workers(monkeypatch, order, workers):
    """Draws of one rank, then of two, then of three, each from where the one before has stopped."""
    make = lambda: ResumableSampler(Shards(), seed=5, infinite=True, order=order)  # noqa: E731
    (single,) = ranks(monkeypatch, 1, make)
    whole = numbers(single, 72)
    drawn = 0
    for world, batches in ((1, 4), (2, 4), (3, 4)):
        each = []
        for sampler in ranks(monkeypatch, world, make):
            loader = DataLoader(
                SeededDataset(sampler.dataset), batch_size=3, sampler=sampler, num_workers=workers, collate_fn=list
            )
            stream = start_loader_at(loader, 5, 0, draw=drawn)
            each.append([one for _ in range(batches) for one in next(stream)])
        together = [one for group in zip(*each, strict=True) for one in group]
        assert together == whole[drawn : drawn + len(together)]
        drawn += len(together)
    assert drawn == 72


def test_the_order_has_a_name(monkeypatch):
    names = [ResumableSampler(Plain(50), order=order).order_name for order in ('auto', 'drawn', 'keyed')]
    assert names == ['drawn', 'drawn', 'keyed']
    assert ResumableSampler(Shards()).order_name == 'in blocks of 2 shards'
    assert ResumableSampler(Shards(), order='drawn').order_name == 'drawn'
    assert ResumableSampler(Shards(), shuffle=False).order_name == 'unshuffled'
    assert ResumableSampler(Sized(2**24)).order_name == 'keyed'


@pytest.mark.parametrize('by_epoch', [False, True])
def test_a_run_does_not_go_on_in_another_order(train, tmp_path, by_epoch):
    def go_on(order, **resume):
        loader = toy_config('x')['train_dataloader']
        loader['sampler'] = dict(type='ResumableSampler', shuffle=True, order=order)
        return train(by_epoch=by_epoch, train_dataloader=loader, **resume)

    whole = go_on('keyed')
    resume = dict(resume=True, load_from=str(tmp_path / 'run' / 'iter_15.pth'))
    assert [indices for indices, _ in go_on('keyed', **resume).trace] == [indices for indices, _ in whole.trace][15:]
    for order in ('drawn', 'auto'):
        with pytest.raises(UsageError, match="run are in the order 'keyed', and those of this run are 'drawn'"):
            go_on(order, **resume)
