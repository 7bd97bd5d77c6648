"""A run that was stopped, anywhere and in any way, ends like the run that was not."""

import signal

import pytest
import torch
from toy_project import toy_config


def assert_same(a, b, path=''):
    """Bit-equal nested states."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f'{path}.{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f'{path}.{i}')
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b, path


def assert_same_checkpoint(a, b):
    a, b = (torch.load(path, weights_only=True) for path in (a, b))
    for key in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        assert_same(a[key], b[key], key)
    return a, b


def seen(runner):
    return [(indices, inputs.tolist()) for indices, inputs in runner.trace]


@pytest.mark.parametrize('by_epoch', [False, True])
def test_the_number_of_workers_changes_nothing(train, by_epoch):
    runs = [train(f'workers{n}', by_epoch=by_epoch, workers=n) for n in (0, 1, 2)]
    assert len(runs[0].trace) == (18 if by_epoch else 17)
    assert seen(runs[0]) == seen(runs[1]) == seen(runs[2])
    for other in runs[1:]:
        assert_same(dict(runs[0].model.state_dict()), dict(other.model.state_dict()))


def test_order_and_augmentation(train):
    runner = train(by_epoch=True)
    epochs = [sum((indices for indices, _ in runner.trace[6 * e : 6 * e + 6]), []) for e in range(3)]
    # 23 samples, each once an epoch, in a new order every time
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    # a sample is augmented anew each time: its noise is another in every epoch
    noise = [{}, {}, {}]
    for iteration, (indices, inputs) in enumerate(runner.trace):
        noise[iteration // 6].update(zip(indices, inputs.tolist(), strict=True))
    assert all(noise[0][i] != noise[1][i] != noise[2][i] for i in range(23))
    assert seen(train('same', by_epoch=True)) == seen(runner)
    assert seen(train('other', by_epoch=True, randomness={'seed': 4})) != seen(runner)


def test_iterations_cross_epochs_in_full_batches(train):
    runner = train()
    draws = sum((indices for indices, _ in runner.trace), [])
    assert len(draws) == 17 * 4
    assert sorted(draws[:23]) == sorted(draws[23:46]) == list(range(23))


@pytest.mark.parametrize('by_epoch, stop', [(False, 5), (False, 10), (True, 5), (True, 10)])
def test_resume_in_process(train, tmp_path, by_epoch, stop):
    whole = train('whole', by_epoch=by_epoch)
    hooks = toy_config('x')['default_hooks']
    hooks['checkpoint'].pop('max_keep_ckpts')
    train('parts', by_epoch=by_epoch, default_hooks=hooks)
    path = tmp_path / 'parts' / f'iter_{stop}.pth'
    resumed = train('parts', by_epoch=by_epoch, resume=True, load_from=str(path), workers=2, default_hooks=hooks)
    last = f'iter_{resumed.iter}.pth'
    a, b = assert_same_checkpoint(tmp_path / 'whole' / last, tmp_path / 'parts' / last)
    assert seen(whole)[stop:] == seen(resumed)
    # the log and the validations go on too
    losses = [hub['log_scalars']['train/loss']._log_history.tolist() for hub in (a['message_hub'], b['message_hub'])]
    assert losses[0] == losses[1] and len(losses[0]) == resumed.iter
    histories = [run.message_hub.get_info('summary/validations') for run in (whole, resumed)]
    assert histories[0] == histories[1]


def test_an_unset_seed_is_drawn_stored_and_restored(train, tmp_path):
    first = train('drawn', randomness={'seed': None})
    again = train('drawn2', randomness={'seed': None})
    assert first.seed != again.seed
    resumed = train('drawn', randomness={'seed': None}, resume=True, load_from=str(tmp_path / 'drawn/iter_15.pth'))
    assert resumed.seed == first.seed
    assert seen(first)[15:] == seen(resumed)
    assert_same(dict(first.model.state_dict()), dict(resumed.model.state_dict()))


def test_a_changed_batch_size_goes_on_behind_the_last_sample(train, tmp_path):
    whole = train('whole')
    loader = {**toy_config('x')['train_dataloader'], 'batch_size': 2}
    resumed = train('whole', train_dataloader=loader, resume=True, load_from=str(tmp_path / 'whole/iter_15.pth'))
    both = [sum((i for i, _ in run.trace), []) for run in (whole, resumed)]
    assert both[0][60:64] == both[1]


def test_sigkill_between_iterations(train, command, tmp_path):
    """2 workers, killed in iteration 13 without a chance to tidy up, resumed from the checkpoint of iteration 10."""
    config = toy_config(tmp_path / 'killed', workers=2)
    config['custom_hooks'].append({'type': 'KillHook', 'at_iter': 13})
    assert command('train.py', config) == -signal.SIGKILL
    assert (tmp_path / 'killed/last_checkpoint').read_text().endswith('iter_10.pth')
    config['custom_hooks'].pop()
    assert command('train.py', config, '--resume') == 0
    train('whole')
    assert_same_checkpoint(tmp_path / 'whole/iter_17.pth', tmp_path / 'killed/iter_17.pth')
    for name in ('metrics.json', 'last_checkpoint'):
        texts = [(tmp_path / run / name).read_text().replace(run, '') for run in ('whole', 'killed')]
        assert texts[0] == texts[1]


def test_sigkill_while_a_checkpoint_is_written_and_in_the_last_validation(train, in_child, tmp_path):
    hooks = toy_config('x')['default_hooks']
    hooks['checkpoint']['max_keep_ckpts'] = 1

    def run(**kill):
        resume = (tmp_path / 'killed').exists()
        custom = [*toy_config('x')['custom_hooks'], {'type': 'KillHook', **kill}]
        return in_child(lambda: train('killed', default_hooks=hooks, custom_hooks=custom, resume=resume))

    assert run(in_save=10) == -signal.SIGKILL
    # the half-written file has no name that anything would read, and the one before is still there
    assert sorted(path.name for path in (tmp_path / 'killed').glob('*.pth')) == ['iter_5.pth']
    assert (tmp_path / 'killed/last_checkpoint').read_text().endswith('iter_5.pth')
    assert list((tmp_path / 'killed').glob('.iter_10.pth.*.tmp'))
    assert run(in_val=17) == -signal.SIGKILL
    assert not list((tmp_path / 'killed').glob('.*.tmp'))
    assert run() == 0
    train('whole')
    assert_same_checkpoint(tmp_path / 'whole/iter_17.pth', tmp_path / 'killed/iter_17.pth')
    # the validation that the kill cut off was made up for
    texts = [(tmp_path / run / 'metrics.json').read_text().replace(run, '') for run in ('whole', 'killed')]
    assert texts[0] == texts[1]
