"""One run at a time in a work folder, and no other run's checkpoints overwritten or deleted."""

import fcntl
import os
import signal
import time

import forks
import pytest
from mmengine.config import Config
from toy_project import toy_config

from florence_mm.engine import FlorenceRunner
from florence_mm.engine.checkpointing import find_latest
from florence_mm.engine.work_folder import LOCK_NAME, lock, require_own
from florence_mm.errors import UsageError


def test_the_lock_names_the_other_run_and_ends_with_it(tmp_path):
    def hold():
        held = lock(tmp_path)
        (tmp_path / 'held').touch()
        os.fork()  # like a data-loading worker, which outlives its parent for a while
        time.sleep(3)
        held.close()

    pid = forks.start(hold)
    while not (tmp_path / 'held').exists():
        time.sleep(0.005)
    with pytest.raises(UsageError, match=rf'is in use by another run \(process {pid} on .* since 20.*\); wait'):
        lock(tmp_path)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    mine = lock(tmp_path)
    assert (tmp_path / LOCK_NAME).read_text().startswith(f'process {os.getpid()} on ')
    mine.close()


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(37, 'No locks available')

    monkeypatch.setattr(fcntl, 'lockf', refuse)
    assert lock(tmp_path) is None


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).touch()
        os.utime(folder / name, (number, number))
    return folder


def test_whose_checkpoints_they_are(tmp_path):
    run = touch(tmp_path / 'run', 'epoch_1.pth', 'best_top1_epoch_1.pth', 'epoch_2.pth')
    other = touch(tmp_path / 'other', 'iter_9.pth')
    pretrained = touch(tmp_path / 'pretrained', 'swin.pth')
    with pytest.raises(UsageError, match=r'run has checkpoints of another run \(epoch_2.pth\).*add --resume'):
        require_own([str(run)], None)
    with pytest.raises(UsageError, match=r'other has checkpoints of another run \(iter_9.pth\) than .*epoch_1.pth'):
        require_own([str(run), str(other)], str(run / 'epoch_1.pth'))
    require_own([str(run)], str(run / 'epoch_1.pth'))
    require_own([str(pretrained), str(tmp_path / 'none')], None)
    # weights with a name of their own are a run's if the folder points to them
    touch(pretrained, 'last_checkpoint')
    with pytest.raises(UsageError, match='swin.pth'):
        require_own([str(pretrained)], None)


def test_a_forgotten_resume_changes_nothing(train, tmp_path):
    train()
    before = {
        path: path.stat().st_mtime_ns for path in (tmp_path / 'run').iterdir() if path.suffix in ('.pth', '.json')
    }
    with pytest.raises(UsageError, match=r'run has checkpoints of another run \(iter_17.pth\), which this run would'):
        train()
    assert before and all(path.stat().st_mtime_ns == when for path, when in before.items())


def test_a_resumed_run_leaves_the_best_of_the_other_folder(train, tmp_path, monkeypatch):
    hooks = toy_config('x')['default_hooks']
    hooks['checkpoint'].update(save_best='toy/mae', rule='less')
    scores = iter([3.0, 2.0, 1.0, 0.9, 0.5, 0.4])
    metric = 'toy_project.ToyMetric.compute_metrics'
    monkeypatch.setattr(metric, lambda *_: {'mae': next(scores)})
    train('first', default_hooks=hooks)
    there = sorted(path.name for path in (tmp_path / 'first').glob('*.pth'))
    assert 'best_toy_mae_iter_17.pth' in there
    longer = {'type': 'IterBasedTrainLoop', 'max_iters': 25, 'val_interval': 5}
    found = find_latest(tmp_path / 'first')
    train('second', default_hooks=hooks, train_cfg=longer, resume=True, load_from=found)
    assert sorted(path.name for path in (tmp_path / 'first').glob('*.pth')) == there
    assert [path.name for path in (tmp_path / 'second').glob('best*')] == ['best_toy_mae_iter_25.pth']


@pytest.mark.parametrize('rubbish', [b'\xff\xfe\x00\x81', b'', b'/no/such/iter_7.pth', b'x' * 5000, b'.', b'..\n'])
def test_rubbish_in_last_checkpoint(tmp_path, rubbish, capsys):
    (tmp_path / 'last_checkpoint').write_bytes(rubbish)
    with pytest.raises(UsageError, match='last_checkpoint names .*, which is no file, and there is no other'):
        find_latest(tmp_path)
    touch(tmp_path, 'iter_5.pth', 'iter_20.pth')
    assert find_latest(tmp_path) == str(tmp_path / 'iter_20.pth')


def test_a_test_leaves_the_config_of_the_training(train, tmp_path):
    trained = train(experiment_name='trained')
    names = [path.name for path in (tmp_path / 'run').glob('*.py')]
    again = {**toy_config(tmp_path / 'run'), 'load_from': str(tmp_path / 'run/iter_17.pth'), 'log_level': 'ERROR'}
    config = Config({**again, 'experiment_name': 'tested'})
    config._filename = trained.cfg.filename
    tester = FlorenceRunner.from_cfg(config)
    assert [path.name for path in (tmp_path / 'run').glob('*.py')] == names and len(names) == 1
    tester.test()
    assert [path.name for path in (tmp_path / 'run').glob('*.py')] == names
    (written,) = (tmp_path / 'run').glob('*/*.py')
    assert "log_level = 'ERROR'" in written.read_text()
