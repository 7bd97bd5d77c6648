"""Processes with different numbers of batches end in a sentence, or go on; none waits for ever."""

import os

import pytest
import torch
from forks import as_ranks
from mmengine.registry import DATA_SAMPLERS
from toy_project import ToyMetric, toy_config

from florence_mm.engine.loops import IterTrainLoop
from florence_mm.errors import UsageError


@DATA_SAMPLERS.register_module()
class ShorterSampler(torch.utils.data.Sampler):
    """Gives the second process fewer samples than the first, and may tell both that it gives as many."""

    def __init__(self, dataset, tells=True, seed=None):
        self.rank, self.tells = torch.distributed.get_rank(), tells

    def __len__(self):
        return 8 - 4 * self.rank if self.tells else 8

    def __iter__(self):
        return iter(range(8 - 4 * self.rank))


def options(sampler, size=23, **changes):
    toy = toy_config('x')
    data = {'dataset': {'type': 'ToyData', 'size': size, 'noise': 0.0}, 'batch_size': 4, 'num_workers': 0}
    return {
        'model': {'type': 'ToyModel', 'drop_rate': 0.0},
        'custom_hooks': [],
        'train_dataloader': {**data, 'sampler': sampler},
        'val_dataloader': {**toy['val_dataloader'], **data},
        'launcher': 'pytorch',
        'parallelize': {'blocks': ['Sequential'], 'shard': True},
        **changes,
    }


def test_no_process_waits_for_ever(train, monkeypatch):
    epochs = {'by_epoch': True, 'max_epochs': 1}
    uneven = {'type': 'ResumableSampler', 'shuffle': True, 'round_up': False}
    scored = []
    monkeypatch.setattr(ToyMetric, 'compute_metrics', lambda self, results: scored.append(len(results)) or {'mae': 0.0})

    def work():
        rank = int(os.environ['RANK'])
        # 9 samples: 5 on the first process, 4 on the second
        for sampler, size in ((uneven, 9), ({'type': 'ShorterSampler'}, 23)):
            with pytest.raises(UsageError, match=r'the 2 processes different numbers of batches, \[2, 1\], .*round_up'):
                train(**options(sampler, size, train_cfg=epochs))
        # by iterations each begins its data again; validated are all 9 samples, though the second has a batch less
        run = options({'type': 'ShorterSampler'}, 9, train_cfg={'by_epoch': False, 'max_iters': 5, 'val_interval': 5})
        run['val_dataloader']['sampler']['round_up'] = False
        runner = train(**run)
        assert (
            isinstance(runner.train_loop, IterTrainLoop)
            and runner.iter == 5
            and len(runner.val_loop.dataloader) == 2 - rank
        )
        assert scored == ([] if rank else [9])
        # the second gives fewer than it tells, and says so before it ends, which the first sees
        errors = (UsageError, 'data loader of rank 1 gave 1 batches instead of 2') if rank else (RuntimeError, 'peer')
        with pytest.raises(errors[0], match=errors[1]):
            train('last', **options({'type': 'ShorterSampler', 'tells': False}, train_cfg=epochs))

    as_ranks(work, 2)
