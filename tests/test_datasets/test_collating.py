"""Batches collated in one piece: the same values as mmengine's collation, with and without workers."""

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader

from florence_mm.datasets import collate_in_one_piece


def packed(number: int, side: int = 4) -> dict:
    """A sample whose values depend on ``number``."""
    sample = DataSample(metainfo={'img_path': f'{number}.png'})
    sample.set_field(f'text {number}', 'text')
    sample.set_gt_label(number)
    sample.set_field(torch.full((2,), number / 3, dtype=torch.bfloat16), 'half')
    return {'inputs': torch.full((3, side, side), number, dtype=torch.uint8), 'data_samples': sample}


@pytest.mark.parametrize('workers', [0, 1])
def test_values_are_those_of_the_plain_collation(workers: int) -> None:
    samples = [packed(number) for number in range(5)]
    loader = DataLoader(samples, batch_size=3, num_workers=workers, collate_fn=collate_in_one_piece)
    batches = list(loader)
    assert [len(batch['inputs']) for batch in batches] == [3, 2]
    for batch, start in zip(batches, (0, 3), strict=True):
        plain = pseudo_collate(samples[start : start + 3])
        assert isinstance(batch['data_samples'], list)
        assert torch.equal(batch['inputs'], torch.stack(plain['inputs']))
        for ours, theirs in zip(batch['data_samples'], plain['data_samples'], strict=True):
            assert type(ours) is DataSample
            assert (ours.text, ours.img_path) == (theirs.text, theirs.img_path)
            assert torch.equal(ours.gt_label, theirs.gt_label)
            assert ours.half.dtype == torch.bfloat16
            assert torch.equal(ours.half, theirs.half)
            # also values that arrived may be written
            assert ours.gt_label.add_(1) == theirs.gt_label + (1 if workers else 0)


def test_data_samples_use_no_shared_memory() -> None:
    batch = next(iter(DataLoader([packed(1), packed(2)], batch_size=2, num_workers=1, collate_fn=collate_in_one_piece)))
    assert batch['inputs'].is_shared()
    assert not any(sample.gt_label.is_shared() for sample in batch['data_samples'])


def test_inputs_of_other_shapes_or_types_stay_a_list() -> None:
    sides = collate_in_one_piece([packed(1, side=4), packed(2, side=5)])['inputs']
    assert [tuple(image.shape) for image in sides] == [(3, 4, 4), (3, 5, 5)]
    other = packed(2)
    other['inputs'] = other['inputs'].float()
    assert [image.dtype for image in collate_in_one_piece([packed(1), other])['inputs']] == [
        torch.uint8,
        torch.float32,
    ]


@pytest.mark.parametrize(
    ('samples', 'found'),
    [
        ([], 'got no sample; give at least one'),
        ([{'inputs': torch.zeros(1)}], "with the keys inputs, not a tensor 'inputs' and 'data_samples'; end its pipel"),
        ([packed(0), {'data_samples': 1}], 'with the keys data_samples, not a tensor'),
        ([{'inputs': {'image': torch.zeros(1)}, 'data_samples': 1}], 'with the keys inputs, data_samples, not a tens'),
        ([{'inputs': torch.zeros(1).numpy(), 'data_samples': 1}], 'with the keys inputs, data_samples, not a tensor'),
        ([(torch.zeros(1), 1)], 'a sample with tuple, not a tensor'),
    ],
)
def test_samples_that_are_not_packed_are_one_sentence(samples: list, found: str) -> None:
    with pytest.raises(TypeError, match=f'^collate_in_one_piece .*{found}'):
        collate_in_one_piece(samples)


def test_nested_values_of_all_kinds_arrive_as_they_are() -> None:
    values = {
        'list': [torch.arange(3, dtype=torch.int32), {'turned': torch.arange(6.0).reshape(2, 3).T}],
        'empty': torch.zeros(0, 4),
        'sparse': torch.eye(2).to_sparse(),
        'number': torch.tensor(True),
    }
    sample = {'inputs': torch.zeros(1), 'data_samples': values}
    loader = DataLoader([sample], num_workers=1, collate_fn=collate_in_one_piece)
    found = next(iter(loader))['data_samples']
    assert torch.equal(found['list'][0][0], values['list'][0])
    assert torch.equal(found['list'][1]['turned'][0], values['list'][1]['turned'])
    assert found['empty'][0].shape == (0, 4)
    assert torch.equal(found['sparse'][0].to_dense(), torch.eye(2))
    assert found['number'] == [torch.tensor(True)]


def test_what_cannot_be_sent_is_an_error_and_no_wait_for_ever() -> None:
    sample = {'inputs': torch.zeros(1), 'data_samples': lambda: 1}
    with pytest.raises(TypeError, match=r'a data sample cannot be sent from its worker \(.*\); take num_workers=0'):
        next(iter(DataLoader([sample], num_workers=1, collate_fn=collate_in_one_piece)))
