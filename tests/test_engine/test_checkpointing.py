import json
import os
import re
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from toy_project import ToyMetric, ToyModel, toy_config

from florence_mm.engine import checkpointing
from florence_mm.engine.checkpointing import find_latest, read_run_checkpoint
from florence_mm.engine.hooks import AtomicCheckpointHook
from florence_mm.errors import UsageError
from florence_mm.models.checkpoints import write_safetensors
from florence_mm.utils.files import replacing


def names(folder, pattern='*.pth'):
    return sorted(path.name for path in Path(folder).glob(pattern))


def checkpoint_hook(**changes):
    hooks = toy_config('x')['default_hooks']
    hooks['checkpoint'].update(changes)
    return hooks


def test_find_latest(tmp_path):
    assert find_latest(tmp_path) is None
    for name in ('iter_900.pth', 'iter_1000.pth', 'best_acc_iter_2000.pth'):
        (tmp_path / name).write_bytes(b'')
    # killed before last_checkpoint was written: the highest number, as a number
    assert find_latest(tmp_path) == str(tmp_path / 'iter_1000.pth')
    # the folder was moved after the run
    (tmp_path / 'last_checkpoint').write_text('/somewhere/else/iter_900.pth')
    assert find_latest(tmp_path) == str(tmp_path / 'iter_900.pth')


def test_unreadable_checkpoints(tmp_path):
    good = tmp_path / 'good.pth'
    torch.save({'state_dict': {'w': torch.arange(1000.0)}}, good)
    assert torch.equal(read_run_checkpoint(str(good))['state_dict']['w'], torch.arange(1000.0))
    content = good.read_bytes()
    middle = content.index(torch.arange(1000.0).numpy().tobytes()) + 2000
    flipped = content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]
    bad = {
        'truncated.pth': (content[: len(content) // 2], 'cannot be read as a checkpoint'),
        'empty.pth': (b'', 'cannot be read as a checkpoint'),
        'text.pth': (b'not a checkpoint', 'cannot be read as a checkpoint'),
        # torch.load itself returns wrong numbers here
        'flipped.pth': (flipped, 'is damaged: good/data/0 in it is not as it was written'),
    }
    for name, (data, fault) in bad.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UsageError, match=f'{name} {fault}.*; .*, or take one of .*good.pth.* beside it$'):
            read_run_checkpoint(str(tmp_path / name))
    with pytest.raises(UsageError, match='does not exist'):
        read_run_checkpoint(str(tmp_path / 'missing.pth'))
    torch.save([1, 2], good)
    with pytest.raises(UsageError, match='holds a list, not a checkpoint'):
        read_run_checkpoint(str(good))


@pytest.mark.parametrize('there', [True, False])
@pytest.mark.parametrize('main', [True, False])
def test_the_main_process_downloads_for_the_others(tmp_path, monkeypatch, main, there):
    """The others wait until it has read the file; they do so too where it cannot, or they would wait for ever."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    if there:
        torch.save({'state_dict': {'a': torch.tensor(1.0)}}, tmp_path / 'a.pth')
    waited = []
    monkeypatch.setattr(checkpointing, 'is_main_process', lambda: main)
    monkeypatch.setattr(checkpointing, 'barrier', lambda: waited.append((tmp_path / 'hub').exists()))
    if there:
        assert read_run_checkpoint((tmp_path / 'a.pth').as_uri()) == {'state_dict': {'a': 1}}
        assert waited == [main]
        read_run_checkpoint(str(tmp_path / 'a.pth'))
    else:
        with pytest.raises(UsageError, match='missing.pth cannot be fetched'):
            read_run_checkpoint((tmp_path / 'missing.pth').as_uri())
    assert len(waited) == 1


def test_the_names_of_0_1_0():
    with pytest.warns(FutureWarning, match='checkpointing.read_checkpoint is now .*checkpointing.read_run_checkpoint'):
        assert checkpointing.read_checkpoint is read_run_checkpoint
    with pytest.warns(FutureWarning, match='checkpointing.replacing is now florence_mm.utils.files.replacing'):
        assert checkpointing.replacing is replacing


def test_no_code_is_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / 'executed',)

    torch.save({'state_dict': {}, 'meta': Evil()}, tmp_path / 'evil.pth')
    with pytest.raises(UsageError, match='evil.pth holds more than tensors .* could run code'):
        read_run_checkpoint(str(tmp_path / 'evil.pth'))
    assert not (tmp_path / 'executed').exists()


def test_plain_and_safetensors_state_dicts(tmp_path):
    from safetensors.torch import save_file

    state = {'w': torch.ones(2)}
    torch.save(state, tmp_path / 'plain.pth')
    save_file(state, tmp_path / 'weights.safetensors')
    for name in ('plain.pth', 'weights.safetensors'):
        assert torch.equal(read_run_checkpoint(str(tmp_path / name))['state_dict']['w'], torch.ones(2))


def test_only_the_newest_are_kept(train, tmp_path):
    train(default_hooks=checkpoint_hook(interval=3, max_keep_ckpts=2))
    assert names(tmp_path / 'run') == ['iter_15.pth', 'iter_17.pth']
    assert (tmp_path / 'run/last_checkpoint').read_text() == str(tmp_path / 'run/iter_17.pth')
    # a kill between the new file and the deletion leaves one too many; the resumed run removes it
    kept = torch.load(tmp_path / 'run/iter_17.pth', weights_only=True)['message_hub']['runtime_info']['keep_ckpt_ids']
    assert kept == [12, 15, 17]
    (tmp_path / 'run/iter_12.pth').write_bytes(b'left over')
    train(default_hooks=checkpoint_hook(interval=3, max_keep_ckpts=2), resume=True)
    assert names(tmp_path / 'run') == ['iter_15.pth', 'iter_17.pth']


def test_the_last_good_checkpoint_outlives_a_failing_save(train, tmp_path, monkeypatch):
    from mmengine.fileio import LocalBackend

    put = LocalBackend.put

    def full_disk(self, content, path):
        if 'iter_10' in str(path):
            put(self, content[:100], path)
            raise OSError(28, 'No space left on device')
        put(self, content, path)

    monkeypatch.setattr(LocalBackend, 'put', full_disk)
    with pytest.raises(UsageError, match='iter_10.pth cannot be written .*No space left.*--resume .*iter_5'):
        train(default_hooks=checkpoint_hook(max_keep_ckpts=1))
    assert names(tmp_path / 'run') == ['iter_5.pth'] and not names(tmp_path / 'run', '.*.tmp')
    assert find_latest(tmp_path / 'run') == str(tmp_path / 'run/iter_5.pth')
    read_run_checkpoint(str(tmp_path / 'run/iter_5.pth'))


class Killed(BaseException):
    """As a kill: nothing that the run does for errors is done."""


def killed(*_, **__):
    raise Killed


def test_an_old_checkpoint_is_deleted_when_another_is_pointed_to(train, tmp_path, monkeypatch):
    train(default_hooks=checkpoint_hook(max_keep_ckpts=1), train_cfg={'type': 'IterBasedTrainLoop', 'max_iters': 5})
    assert names(tmp_path / 'run') == ['iter_5.pth']
    # killed between the new checkpoint and the pointer: what it points to is still there
    monkeypatch.setattr('florence_mm.engine.hooks.checkpoint.write_atomic', killed)
    with pytest.raises(Killed):
        train(default_hooks=checkpoint_hook(max_keep_ckpts=1), resume=True)
    assert names(tmp_path / 'run') == ['iter_10.pth', 'iter_5.pth']
    assert (tmp_path / 'run/last_checkpoint').read_text() == str(tmp_path / 'run/iter_5.pth')
    monkeypatch.undo()
    # killed between the pointer and the deletion: it points to the new one
    monkeypatch.setattr('florence_mm.engine.hooks.AtomicCheckpointHook._remove', killed)
    with pytest.raises(Killed):
        train(default_hooks=checkpoint_hook(max_keep_ckpts=1), resume=True)
    assert names(tmp_path / 'run') == ['iter_10.pth', 'iter_5.pth']
    assert (tmp_path / 'run/last_checkpoint').read_text() == str(tmp_path / 'run/iter_10.pth')


@pytest.mark.skipif(not Path('/proc/self/fd').is_dir(), reason='open files are looked up in /proc')
def test_checkpoints_are_on_the_disk_before_they_are_pointed_to_and_before_others_go(train, tmp_path, monkeypatch):
    steps, fsync, remove = [], os.fsync, AtomicCheckpointHook._remove

    def flush(descriptor):
        name = Path(f'/proc/self/fd/{descriptor}').readlink().name
        steps.append(re.sub(rf'\.{os.getpid()}-\w+\.tmp$', '', name))
        fsync(descriptor)

    monkeypatch.setattr(os, 'fsync', flush)
    monkeypatch.setattr(
        AtomicCheckpointHook, '_remove', lambda hook, path: steps.append('remove') or remove(hook, path)
    )
    train(
        default_hooks={**checkpoint_hook(max_keep_ckpts=1), 'run_summary': None},
        train_cfg={'type': 'IterBasedTrainLoop', 'max_iters': 10},
    )
    # a file, then the folder, which has its name
    five, ten = (['.iter_5.pth', 'run', '.last_checkpoint', 'run'], ['.iter_10.pth', 'run', '.last_checkpoint', 'run'])
    assert steps == [*five, *ten, 'remove']


def test_the_best_before_is_deleted_when_the_last_checkpoint_names_the_new_one(train, tmp_path, monkeypatch):
    hooks = checkpoint_hook(save_best='toy/mae', rule='less', interval=100)
    train(default_hooks=hooks, train_cfg={'type': 'IterBasedTrainLoop', 'max_iters': 10, 'val_interval': 5})
    ((before,), folder) = names(tmp_path / 'run', 'best*'), tmp_path / 'run'
    monkeypatch.setattr(ToyMetric, 'compute_metrics', lambda *_: {'mae': 0.0})
    save = AtomicCheckpointHook._save
    monkeypatch.setattr(
        AtomicCheckpointHook,
        '_save',
        lambda hook, runner, name, *args, **kwargs: (save if 'best' in name else killed)(
            hook, runner, name, *args, **kwargs
        ),
    )
    with pytest.raises(Killed):
        train(default_hooks=hooks, resume=True)
    # a resumed run starts from a checkpoint that knows the best before alone
    assert names(folder, 'best*') == sorted([before, 'best_toy_mae_iter_15.pth'])


def test_a_best_that_is_not_finite_pushes_out_no_good_one(train, tmp_path, monkeypatch):
    hooks = checkpoint_hook(save_best='toy/mae', rule='less')
    hooks['invalid_loss'] = None
    scores = iter([3.0, 2.0, 1.0])
    monkeypatch.setattr(ToyMetric, 'compute_metrics', lambda *_: {'mae': next(scores)})
    # the weights are spoilt in iteration 11, after the best of iteration 10
    with pytest.raises(UsageError, match='iter_15.pth is not written because'):
        train(default_hooks=hooks, model={'type': 'ToyModel', 'nan_from': 11})
    assert names(tmp_path / 'run', 'best*') == ['best_toy_mae_iter_10.pth']
    last = torch.load(find_latest(tmp_path / 'run'), weights_only=True)['message_hub']['runtime_info']
    assert last['best_score'] == 2.0 and last['best_ckpt'] == str(tmp_path / 'run/best_toy_mae_iter_10.pth')


def test_best(train, tmp_path):
    run = train(default_hooks=checkpoint_hook(save_best='toy/mae', rule='less'))
    history = run.message_hub.get_info('summary/validations')
    best = min(history, key=lambda entry: entry['metrics']['toy/mae'])
    assert names(tmp_path / 'run', 'best*') == [f'best_toy_mae_iter_{best["iter"]}.pth']
    saved = torch.load(tmp_path / 'run' / names(tmp_path / 'run', 'best*')[0], weights_only=True)
    assert 'optimizer' not in saved and saved['meta']['iter'] == best['iter']
    # the last checkpoint knows the best, so that a resumed run replaces it
    last = torch.load(find_latest(tmp_path / 'run'), weights_only=True)['message_hub']['runtime_info']
    assert last['best_score'] == pytest.approx(best['metrics']['toy/mae'])
    with pytest.raises(UsageError, match="save_best='acc' is no metric of the validation; it gives toy/mae"):
        train('other', default_hooks=checkpoint_hook(save_best='acc'))


def test_diverged_training_stops_and_keeps_its_checkpoint(train, tmp_path):
    model = {'type': 'ToyModel', 'nan_from': 7}
    with pytest.raises(UsageError, match='loss was not finite in 3 iterations in a row, the last of them iteration 9;'):
        train(model=model)
    assert names(tmp_path / 'run') == ['iter_5.pth']
    hooks = toy_config('x')['default_hooks']
    # with more patience a checkpoint falls due, and its weights are not written
    hooks['invalid_loss'] = {'type': 'florence_mm.InvalidLossHook', 'patience': 6}
    with pytest.raises(UsageError, match='iter_10.pth is not written because log_scale, .*iter_5.pth with --resume'):
        train('patient', model=model, default_hooks=hooks)
    assert names(tmp_path / 'patient') == ['iter_5.pth']
    assert find_latest(tmp_path / 'patient') == str(tmp_path / 'patient/iter_5.pth')


def test_metrics_file(train, tmp_path):
    run = train()
    content = json.loads((tmp_path / 'run/metrics.json').read_text())
    assert content['iter'] == 17 and content['checkpoint'].endswith('iter_17.pth')
    assert [entry['iter'] for entry in content['history']] == [5, 10, 15, 17]
    assert content['metrics'] == content['history'][-1]['metrics'] != content['history'][0]['metrics']
    assert content['history'] == run.message_hub.get_info('summary/validations')


def test_metrics_that_json_does_not_have():
    from florence_mm.engine.hooks.run_summary import plain

    metrics = {'a': float('nan'), 'b': torch.tensor([1.5, float('inf')]), 'c': (torch.tensor(2), {3: 'x'}), 'd': True}
    assert plain(metrics) == {'a': None, 'b': [1.5, None], 'c': [2, {'3': 'x'}], 'd': True}


def test_class_names(train):
    hooks = {**checkpoint_hook(), 'class_names': {'type': 'ClassNamesHook', 'templates': ['a {} number']}}
    assert train(default_hooks=hooks).model.classes == (['even', 'odd'], ['a {} number'])
    # the default: CLIP's templates and the bare name
    assert len(train('default').model.classes[1]) == 81


@pytest.fixture
def trained(train, tmp_path):
    train()
    return tmp_path / 'run/iter_15.pth'


def test_resuming_from_what_cannot_be_resumed(train, trained, tmp_path):
    weights = tmp_path / 'weights.pth'
    checkpoint = torch.load(trained, weights_only=True)
    torch.save({'state_dict': checkpoint['state_dict']}, weights)
    with pytest.raises(UsageError, match='weights.pth holds no meta, message_hub, optimizer, param_schedulers, so'):
        train('a', resume=True, load_from=str(weights))
    with pytest.raises(UsageError, match=r'iter_15.pth is of another model: 3 weights differ, the first is'):
        train('b', resume=True, load_from=str(trained), model={'type': 'ToyModel', 'width': 9})
    with pytest.raises(UsageError, match='cannot resume from .*iter_15.pth'):
        wrapper = {**toy_config('x')['optim_wrapper'], 'paramwise_cfg': {'custom_keys': {'fc.0': {'lr_mult': 0.1}}}}
        train('c', resume=True, load_from=str(trained), optim_wrapper=wrapper)
    loader = {**toy_config('x')['train_dataloader'], 'dataset': {'type': 'ToyData', 'size': 30}}
    with pytest.raises(
        UsageError, match=r'by epochs over 23 samples in batches of 4 \(6 batches an .* over 30 samples .*\(8 batches'
    ):
        train('epochs', by_epoch=True)
        path = str(tmp_path / 'epochs/iter_15.pth')
        train('d', by_epoch=True, resume=True, load_from=path, train_dataloader=loader)


def test_loading_weights(train, trained, tmp_path):
    hooks = {**checkpoint_hook(), 'logger': {'type': 'LoggerHook', 'interval': 5}}
    torch.save({'other.weight': torch.zeros(1)}, tmp_path / 'other.pth')
    with pytest.raises(UsageError, match="no weight in .*other.pth belongs to this model .*'other.weight'"):
        train('a', load_from=str(tmp_path / 'other.pth'), default_hooks=hooks)
    # weights are taken, the iterations start anew
    fresh = {'optimizer': {'type': 'SGD', 'lr': 0.0}}
    run = train('b', load_from=str(trained), optim_wrapper=fresh, param_scheduler=None, custom_hooks=[])
    saved = torch.load(trained, weights_only=True)['state_dict']
    assert run.iter == 17 and all(torch.equal(saved[key], value) for key, value in run.model.state_dict().items())


def test_what_counts_steps_begins_anew_with_loaded_weights_alone(train, tmp_path):
    @MODELS.register_module(name='CountingToy', force=True)
    class CountingToy(ToyModel):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            self.register_buffer('seen', torch.tensor(0))

        def restart(self):
            self.seen.zero_()

        def forward(self, inputs, index, mode='tensor'):
            self.seen += mode == 'loss'
            return super().forward(inputs, index, mode)

    model = {'type': 'CountingToy'}
    steps = int(train(model=model).model.seen)
    assert steps == 17
    path = str(tmp_path / 'run/iter_15.pth')
    assert int(train('again', model=model, load_from=path).model.seen) == 17
    assert int(train('resumed', model=model, load_from=path, resume=True).model.seen) == 17  # 15 and 2 more


def test_a_run_behind_other_frozen_weights_is_refused(train, tmp_path):
    @MODELS.register_module(name='FrozenToy', force=True)
    class FrozenToy(ToyModel):
        def __init__(self, value=1.0, **arguments):
            super().__init__(**arguments)
            self.frozen = torch.nn.Linear(2, 2).requires_grad_(False)
            torch.nn.init.constant_(self.frozen.weight, value)
            torch.nn.init.zeros_(self.frozen.bias)
            self.frozen.has_weights = True

        def left_out_parts(self):
            return ('frozen',)

    train(model={'type': 'FrozenToy'})
    path = str(tmp_path / 'run/iter_15.pth')
    saved = torch.load(path, weights_only=False)
    assert not [key for key in (*saved['state_dict'], *saved['ema_state_dict']) if 'frozen' in key]
    assert saved['meta']['frozen_samples'] == {'frozen': {'bias': [2.0, *[0.0] * 4], 'weight': [4.0, *[1.0] * 4]}}
    assert train('resumed', model={'type': 'FrozenToy'}, load_from=path, resume=True).iter == 17
    for resume in (True, False):
        with pytest.raises(UsageError, match='iter_15.pth was trained with another frozen: 1 of the 2 tensors that it'):
            train(f'other{resume}', model={'type': 'FrozenToy', 'value': 2.0}, load_from=path, resume=resume)


def test_resume_without_a_checkpoint_starts_at_the_beginning(train):
    assert train(resume=True).iter == 17


def test_data_that_give_no_batch(train):
    loader = {**toy_config('x')['train_dataloader'], 'dataset': {'type': 'ToyData', 'size': 3}, 'drop_last': True}
    for by_epoch in (True, False):
        if by_epoch:
            with pytest.raises(UsageError, match='give no batch: 3 samples do not fill one of size 4 on each of 1 pro'):
                train(by_epoch=by_epoch, train_dataloader=loader)
        else:
            # by iterations, batches go on into the next epoch
            assert train(train_dataloader=loader).iter == 17


def test_plain_runner_with_our_parts_resumes_exactly(train, tmp_path):
    from mmengine.runner import Runner

    hooks = checkpoint_hook(type='florence_mm.AtomicCheckpointHook')
    loop = {'type': 'florence_mm.IterTrainLoop', 'max_iters': 17, 'val_interval': 5}
    whole = train('whole', runner=Runner, default_hooks=hooks, train_cfg=loop)
    resumed = train(
        'whole',
        runner=Runner,
        default_hooks=hooks,
        train_cfg=loop,
        resume=True,
        load_from=str(tmp_path / 'whole/iter_15.pth'),
    )
    assert [i for i, _ in whole.trace][15:] == [i for i, _ in resumed.trace]
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key])


def test_the_hint_names_whole_files_of_both_kinds(tmp_path):
    torch.save({'state_dict': {'w': torch.zeros(9)}}, tmp_path / 'a.pth')
    write_safetensors(tmp_path / 'b.safetensors', {'w': torch.zeros(9)})
    for name in ('a.pth', 'b.safetensors'):
        data = (tmp_path / name).read_bytes()
        (tmp_path / f'cut_{name}').write_bytes(data[: len(data) // 2])
    (tmp_path / 'empty.pth').touch()
    with pytest.raises(UsageError, match=', or take one of a.pth, b.safetensors beside it$'):
        read_run_checkpoint(str(tmp_path / 'cut_a.pth'))
