"""What a resumed run takes from its checkpoint, and what from its config."""

import logging

import pytest
import torch
from mmengine.config import Config
from test_resume import assert_same
from toy_project import toy_config

from florence_mm.engine.changed_settings import changed_keys
from florence_mm.engine.launch import set_resume
from florence_mm.errors import UsageError


def wrapper(lr=0.01, **changes):
    return {**toy_config('x')['optim_wrapper'], 'optimizer': {'type': 'AdamW', 'lr': lr}, **changes}


def loader(**changes):
    return {**toy_config('x')['train_dataloader'], **changes}


@pytest.fixture
def rates(monkeypatch):
    """Learning rates of the iterations, as the optimizer had them."""
    seen = []
    step = torch.optim.AdamW.step

    def noting(self, *args, **kwargs):
        seen.append(self.param_groups[0]['lr'])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, 'step', noting)
    return seen


@pytest.fixture
def half(train, tmp_path):
    """A run of iterations, and its checkpoint of iteration 10."""

    def resume(by_epoch=False, **changes):
        folder = tmp_path / 'half'
        if not folder.exists():
            train('half', by_epoch=by_epoch, default_hooks=keep_all())
        again = {'by_epoch': by_epoch, 'resume': True, 'load_from': str(folder / 'iter_10.pth'), **changes}
        name = f'resumed{len(list(tmp_path.iterdir()))}'
        return train(name, default_hooks=keep_all(), **again)

    return resume


def keep_all():
    hooks = toy_config('x')['default_hooks']
    hooks['checkpoint'].pop('max_keep_ckpts')
    return hooks


SCHEDULES = {
    'cosine': [{'type': 'CosineAnnealingLR', 'T_max': 17, 'by_epoch': False}],
    'none': None,
    'warm-up by iterations, steps by epochs': [
        {'type': 'LinearLR', 'start_factor': 0.1, 'by_epoch': False, 'begin': 0, 'end': 8},
        {'type': 'MultiStepLR', 'by_epoch': True, 'milestones': [1, 2]},
    ],
}


@pytest.mark.parametrize('schedule', SCHEDULES)
def test_another_learning_rate_is_that_of_a_run_with_it_throughout(train, half, rates, caplog, schedule):
    changed = {'optim_wrapper': wrapper(0.002), 'param_scheduler': SCHEDULES[schedule]}
    train('whole', by_epoch=True, **changed)
    whole, rates[:] = list(rates), []
    train('half', by_epoch=True, param_scheduler=SCHEDULES[schedule], default_hooks=keep_all())
    rates.clear()
    logging.getLogger('mmengine').addHandler(caplog.handler)
    half(by_epoch=True, **changed)
    assert rates == pytest.approx(whole[10:], rel=1e-9)
    assert len(set(rates)) > 1 or schedule == 'none'


def test_a_longer_run_ends_its_schedule_where_the_config_says(train, half, rates):
    short = {'train_cfg': {'type': 'IterBasedTrainLoop', 'max_iters': 10, 'val_interval': 10}}
    cosine = [{'type': 'CosineAnnealingLR', 'by_epoch': False}]  # to the end of the run
    train('half', param_scheduler=cosine, default_hooks=keep_all(), **short)
    assert rates[-1] < 0.001
    rates.clear()
    train('whole', param_scheduler=cosine)
    whole, rates[:] = list(rates), []
    half(param_scheduler=cosine)
    assert rates == pytest.approx(whole[10:], rel=1e-9)


def test_changes_are_told(half, capsys):
    half(optim_wrapper=wrapper(0.5), val_dataloader={**toy_config('x')['val_dataloader'], 'batch_size': 3})
    told = [line for line in capsys.readouterr().out.splitlines() if 'WARNING' in line]
    assert any('(lr 0.01 -> 0.5): those of this config go on at iteration 10 with lr 0.' in line for line in told)
    everything = next(line for line in told if 'used from here on' in line)
    assert 'optim_wrapper.optimizer.lr 0.01 -> 0.5' in everything and 'val_dataloader.batch_size 4 -> 3' in everything
    assert 'work_dir' not in everything


def test_a_folder_without_a_checkpoint_is_told_in_one_line(train, tmp_path, capsys):
    (tmp_path / 'new').mkdir()
    train('new', resume=True, log_level='INFO')
    said = capsys.readouterr().out
    told = [line for line in said.splitlines() if 'holds no checkpoint' in line]
    assert len(told) == 1
    assert told[0].endswith(f'{tmp_path}/new holds no checkpoint to resume; the run starts at the beginning')
    assert 'Load checkpoint' not in said and 'resumed' not in said
    cfg = Config(toy_config(tmp_path / 'other', load_from='weights.pth'))
    set_resume(cfg, 'auto')
    assert cfg.get('resume') is None and cfg.load_from == 'weights.pth'
    said = capsys.readouterr()
    assert f'{tmp_path}/other holds no checkpoint to resume; the run begins with weights.pth' in said.out + said.err


def test_nothing_is_told_of_the_same_config(half, capsys):
    half()
    assert 'used from here on' not in capsys.readouterr().out


@pytest.mark.parametrize(
    ('by_epoch', 'changes', 'said'),
    [
        (True, {'train_dataloader': loader(batch_size=2)}, r'batches of 4 \(6 batches an epoch\), .* 2 \(12 batches'),
        (True, {'train_dataloader': loader(dataset={'type': 'ToyData', 'size': 22})}, 'over 23 samples .* 22 samples'),
        (False, {'train_dataloader': loader(dataset={'type': 'ToyData', 'size': 12})}, 'over 23 samples .* 12 samples'),
        (False, {'train_cfg': {'by_epoch': True, 'max_epochs': 9}}, 'by iterations over .* is by epochs over'),
        (False, {'randomness': {'seed': 4}}, 'a run with the seed 3, .* has randomness.seed=4; give --seed 3'),
        (
            False,
            {'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 1.0}}},
            'of another optimizer: it has .* SGD has',
        ),
        (
            False,
            {'optim_wrapper': wrapper(accumulative_counts=4)},
            'accumulative_counts=1 cannot go on with accumulative_counts=4',
        ),
        (
            False,
            {
                'optim_wrapper': wrapper(0.5),
                'param_scheduler': [{'type': 'ReduceOnPlateauLR', 'monitor': 'toy/mae', 'rule': 'less'}],
            },
            'ReduceOnPlateauLR follows the scores of validations and cannot be computed',
        ),
    ],
)
def test_what_the_state_does_not_fit_is_refused(half, by_epoch, changes, said):
    with pytest.raises(UsageError, match=said):
        half(by_epoch=by_epoch, **changes)


@pytest.mark.parametrize('by_epoch', [False, True])
@pytest.mark.parametrize('counts', [3, 4])
def test_summed_gradients_are_in_checkpoints(train, half, tmp_path, by_epoch, counts):
    """Iteration 10 lies between two updates of 3 or 4 iterations each."""
    accumulating = {'optim_wrapper': wrapper(accumulative_counts=counts)}
    whole = train('half', by_epoch=by_epoch, default_hooks=keep_all(), **accumulating)
    stored, of, _ = torch.load(tmp_path / 'half/iter_10.pth', weights_only=True)['accumulated_gradients']
    assert of == counts and max(float(gradient.abs().max()) for gradient in stored.values()) > 0
    resumed = half(by_epoch=by_epoch, **accumulating)
    assert_same(dict(whole.model.state_dict()), dict(resumed.model.state_dict()))
    with pytest.raises(UsageError, match=f'iter_10.pth of iteration 10 with .*={counts} cannot go on with .*=5, as'):
        half(by_epoch=by_epoch, optim_wrapper=wrapper(accumulative_counts=5))


def steps_of(path):
    state = torch.load(path, weights_only=True)['optimizer']
    return int(next(iter(state['state'].values()))['step'])


def test_a_run_that_ended_in_the_middle_of_a_sum_goes_on_with_whole_sums(train, tmp_path):
    """Of 10 iterations the last two were one update; 8 more are two updates of 4, in one go or resumed in between."""
    folder, counts = tmp_path / 'short', {'optim_wrapper': wrapper(accumulative_counts=4), 'default_hooks': keep_all()}
    iterations = {'type': 'IterBasedTrainLoop', 'val_interval': 50}
    again = {'resume': True, **counts}
    train('short', train_cfg={**iterations, 'max_iters': 10}, **counts)
    assert steps_of(folder / 'iter_10.pth') == 3
    more = {'train_cfg': {**iterations, 'max_iters': 18}}
    longer = train('longer', load_from=str(folder / 'iter_10.pth'), **again, **more)
    assert steps_of(tmp_path / 'longer/iter_18.pth') == 5
    assert steps_of(tmp_path / 'longer/iter_15.pth') == 4
    resumed = train('resumed', load_from=str(tmp_path / 'longer/iter_15.pth'), **again, **more)
    assert_same(dict(longer.model.state_dict()), dict(resumed.model.state_dict()))


@pytest.mark.parametrize(
    ('spoil', 'said'), [(lambda w: w.long(), 'has torch.int64 numbers'), (lambda w: w * float('nan'), 'is not finite')]
)
def test_weights_that_are_no_weights(train, half, tmp_path, spoil, said):
    train('half', default_hooks=keep_all())
    path = tmp_path / 'half/iter_10.pth'
    checkpoint = torch.load(path, weights_only=True)
    checkpoint['state_dict']['fc.0.weight'] = spoil(checkpoint['state_dict']['fc.0.weight'])
    torch.save(checkpoint, path)
    with pytest.raises(UsageError, match=f'iter_10.pth: fc.0.weight {said}'):
        half()


def test_a_config_in_a_checkpoint_is_read_and_not_executed(half, train, tmp_path):
    train('half', default_hooks=keep_all())
    path, trace = tmp_path / 'half/iter_10.pth', tmp_path / 'executed'
    checkpoint = torch.load(path, weights_only=True)
    checkpoint['meta']['config'] = checkpoint['meta']['cfg'] = (
        f'from pathlib import Path\nPath({str(trace)!r}).touch()\n'
    )
    torch.save(checkpoint, path)
    assert half().iter == 17 and not trace.exists()


def test_changed_keys():
    cfg = Config({'a': 1, 'b': {'c': [1, {'d': 'x'}], 'e': (2, 3)}, 'work_dir': 'here', 'new': None})
    before = "a = 1.5\nb = dict(c=[1, dict(d='y')], e=(2, 3), gone=[])\nwork_dir = 'there'\n"
    assert changed_keys(before, cfg) == [
        'a 1.5 -> 1', "b.c.1.d 'y' -> 'x'", 'b.gone [] -> unset', 'new unset -> None'
    ]  # fmt: skip
    assert (
        changed_keys(cfg.pretty_text, cfg) == changed_keys('a = open(1)', cfg) == changed_keys(None, Config({})) == []
    )


def test_kernels_of_the_optimizer_are_those_of_the_config(half):
    fused = half(optim_wrapper=wrapper() | {'optimizer': {'type': 'AdamW', 'lr': 0.01, 'fused': True}})
    assert all(group['fused'] for group in fused.optim_wrapper.optimizer.param_groups)
    plain = half()
    assert not any(group['fused'] for group in plain.optim_wrapper.optimizer.param_groups)
    # the same steps, but for rounding
    for key, weight in plain.model.state_dict().items():
        assert torch.allclose(fused.model.state_dict()[key], weight, rtol=1e-4, atol=1e-6), key
