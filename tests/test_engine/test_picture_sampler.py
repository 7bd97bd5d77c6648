import itertools

import pytest
import torch
from mmengine.runner import Runner
from torch.utils.data import ConcatDataset

from florence_mm.engine import samplers
from florence_mm.engine.dataloading import SeededDataset, resumable, start_loader_at
from florence_mm.engine.picture_sampler import PictureSampler

# of picture c there are three questions, not one after the other
PICTURES = ['c', 'a', 'c', 'b', 'a', 'c', 'd', 'd']


class Questions(torch.utils.data.Dataset):
    def __init__(self, pictures=PICTURES):
        self.pictures = list(pictures)

    def __len__(self):
        return len(self.pictures)

    def get_data_info(self, index):
        return {'img_path': self.pictures[index], 'img_id': ord(self.pictures[index])}

    def __getitem__(self, index):
        return self.pictures[index], int(index)


def ranks(monkeypatch, world, dataset, **options):
    """The sampler of each rank."""
    made = []
    for rank in range(world):
        monkeypatch.setattr(samplers, 'get_dist_info', lambda rank=rank: (rank, world))
        made.append(PictureSampler(dataset, **{'seed': 3, **options}))
    return made


def draws(sampler, count=None):
    return [(int(index), index.seed) for index in itertools.islice(sampler, count)]


def indices(sampler, count=None):
    return [index for index, _ in draws(sampler, count)]


def names(dataset, found):
    return [dataset.pictures[index] for index in found]


def together(pictures):
    """Whether equal pictures stand side by side."""
    return len(list(itertools.groupby(pictures))) == len(set(pictures))


def test_in_order():
    sampler = PictureSampler(Questions(), shuffle=False, seed=0)
    assert indices(sampler) == [0, 2, 5, 1, 4, 3, 6, 7]  # ccc aa b dd
    assert len(sampler) == 8


def test_an_epoch_has_every_sample_once_by_pictures_in_a_new_order():
    dataset = Questions([chr(97 + i * 7 % 20) for i in range(100)])
    sampler = PictureSampler(dataset, seed=1)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        found = indices(sampler)
        assert sorted(found) == list(range(100)) and together(names(dataset, found))
        orders.append(found)
    pictures = [list(dict.fromkeys(names(dataset, found))) for found in orders]
    assert pictures[0] != pictures[1] != pictures[2] != pictures[0]
    # samples are shuffled within their picture too
    within = [[index for index in found if dataset.pictures[index] == 'a'] for found in orders]
    assert len({tuple(order) for order in within}) > 1
    sampler.set_epoch(0)
    assert indices(sampler) == orders[0] != indices(PictureSampler(dataset, seed=2))


def test_at_most_so_many_samples_of_a_picture_come_together():
    # nine pictures of seven samples: groups of three, three and one, anywhere in the order
    dataset = Questions([chr(97 + i % 9) for i in range(63)])
    sampler = PictureSampler(dataset, seed=1, together=3)
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        found = indices(sampler)
        assert sorted(found) == list(range(63))
        orders.append(found)
    runs = [len(list(run)) for _, run in itertools.groupby(names(dataset, orders[0]))]
    # 27 groups, of which few happen to stand beside another of their picture
    assert 22 <= len(runs) <= 27 and set(runs) <= {1, 3, 4, 6}
    assert orders[0] != orders[1]
    seeds = {
        picture: {seed for index, seed in draws(sampler) if dataset.pictures[index] == picture} for picture in 'ab'
    }
    assert all(len(found) == 1 for found in seeds.values()) and seeds['a'] != seeds['b']
    whole = PictureSampler(dataset, seed=1, together=7)
    assert together(names(dataset, indices(whole)))
    assert indices(PictureSampler(Questions(), shuffle=False, seed=0, together=1)) == [0, 2, 5, 1, 4, 3, 6, 7]
    with pytest.raises(ValueError, match='together is 0; give at least 1 sample of an image'):
        PictureSampler(Questions(), together=0)


def test_samples_of_a_picture_share_a_seed_for_an_epoch():
    sampler = PictureSampler(Questions(), seed=1)
    seeds = {}
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for index, seed in draws(sampler):
            seeds.setdefault((epoch, PICTURES[index]), set()).add(seed)
    assert len(seeds) == 8 and all(len(found) == 1 for found in seeds.values())
    assert len(set.union(*seeds.values())) == 8


def test_two_ranks_have_pictures_of_their_own(monkeypatch):
    # stretches of four samples: ccc a | a b dd, one picture at the border
    first, second = ranks(monkeypatch, 2, Questions(), shuffle=False)
    assert indices(first) == [0, 2, 5, 1] and indices(second) == [4, 3, 6, 7]
    # as many of each picture: none is shared, in any order
    dataset = Questions(''.join('abcdef') * 3)
    pair = ranks(monkeypatch, 2, dataset)
    for epoch in range(4):
        for sampler in pair:
            sampler.set_epoch(epoch)
        mine, other = (indices(sampler) for sampler in pair)
        assert not set(names(dataset, mine)) & set(names(dataset, other))
        assert sorted(mine + other) == list(range(18)) and len(mine) == len(other) == 9


@pytest.mark.parametrize('world', [2, 3, 5, 7])
def test_ranks_share_the_samples_out_evenly(monkeypatch, world):
    size = 17
    dataset = Questions([chr(97 + i // 3) for i in range(size)])
    up = ranks(monkeypatch, world, dataset)
    found = [indices(sampler) for sampler in up]
    assert {len(part) for part in found} == {len(sampler) for sampler in up} == {-(-size // world)}
    assert set(itertools.chain(*found)) == set(range(size))
    # what a rank takes beyond its own is the first of its neighbour
    for mine, other in itertools.pairwise(found):
        assert set(mine) & set(other) <= {mine[-1]} & {other[0]}
    assert all(together(names(dataset, part)) for part in found)
    down = [indices(sampler) for sampler in ranks(monkeypatch, world, dataset, round_up=False)]
    assert sorted(itertools.chain(*down)) == list(range(size))
    assert max(map(len, down)) - min(map(len, down)) == 1


@pytest.mark.parametrize('infinite', [False, True])
@pytest.mark.parametrize('world', [1, 3])
def test_starting_in_the_middle_of_an_epoch(monkeypatch, world, infinite):
    for sampler in ranks(monkeypatch, world, Questions(), infinite=infinite):
        sampler.set_epoch(2)
        whole = draws(sampler, 40)
        for batches in (1, 2, 5):
            # batches of one sample
            sampler.start_at(batches * world)
            assert draws(sampler, 40 - batches) == whole[batches:]
        assert draws(sampler, 40) == whole


def test_infinite_sampling_is_epoch_after_epoch(monkeypatch):
    finite, infinite = (ranks(monkeypatch, 2, Questions(), infinite=flag)[1] for flag in (False, True))
    expected = []
    for epoch in range(3):
        finite.set_epoch(epoch)
        expected += draws(finite)
    assert draws(infinite, 12) == expected


def test_other_fields_concatenations_and_faults():
    dataset = ConcatDataset([Questions('ab'), Questions('bca')])
    sampler = PictureSampler(dataset, shuffle=False, seed=0)
    assert indices(sampler) == [0, 4, 1, 2, 3]
    assert indices(PictureSampler(SeededDataset(dataset), shuffle=False, seed=0, key='img_id')) == [0, 4, 1, 2, 3]
    with pytest.raises(ValueError, match="sample 0 of data set Questions has no 'file'; set `key` .* img_id, img_path"):
        PictureSampler(SeededDataset(Questions()), key='file')
    with pytest.raises(ValueError, match='data set range has no get_data_info'):
        PictureSampler(range(3))
    with pytest.raises(ValueError, match='has no samples'):
        PictureSampler(Questions(''))


def test_batches_of_a_loader_hold_pictures_and_start_anywhere():
    dataset = Questions([chr(97 + i % 5) for i in range(20)])
    cfg = resumable({'dataset': dataset, 'sampler': {'type': 'florence_mm.PictureSampler'}}, infinite=False)
    loader = Runner.build_dataloader({**cfg, 'batch_size': 4, 'num_workers': 0}, seed=4)
    assert type(loader.sampler) is PictureSampler
    whole = list(start_loader_at(loader, seed=8, batch=0, epoch=2))
    # four questions a picture, four a batch
    assert [len(set(pictures)) for pictures, _ in whole] == [1] * 5
    assert list(start_loader_at(loader, seed=8, batch=3, epoch=2)) == whole[3:] != []
    assert list(start_loader_at(loader, seed=9, batch=3, epoch=2)) != whole[3:]
