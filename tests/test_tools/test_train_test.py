"""The commands, as a user runs them."""

import json
import socket

import pytest
import torch
from toy_project import toy_config


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


def weights(path):
    return torch.load(path, weights_only=True)['state_dict']


def without_dropout(work_dir, batch_size, **changes):
    config = toy_config(work_dir, model={'type': 'ToyModel', 'drop_rate': 0.0}, **changes)
    config['train_dataloader'] = {**config['train_dataloader'], 'batch_size': batch_size}
    return config


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A toy trained in this process."""
    from mmengine.config import Config

    from florence_mm.engine import FlorenceRunner

    folder = tmp_path_factory.mktemp('trained')
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    FlorenceRunner.from_cfg(Config({**without_dropout(folder, 4), 'experiment_name': 'trained'})).train()
    torch.set_num_threads(threads)
    return folder


def test_two_processes_equal_one_with_the_batch_of_both(tool, trained, tmp_path):
    """Data, augmentation and averaged gradients: the same weights but for the order of floating-point sums."""
    config = without_dropout(tmp_path / 'two', 2, launcher='pytorch')
    run = tool('dist_train.sh', config, 2, PORT=free_port())
    assert run.returncode == 0, run.stderr[-3000:]
    one, two = (weights(folder / 'iter_17.pth') for folder in (trained, tmp_path / 'two'))
    # three sequential epochs' worth of steps: a wrong sample or an unaveraged gradient shows at 1e-3
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-6, atol=1e-6)
    histories = [json.loads((f / 'metrics.json').read_text())['history'] for f in (trained, tmp_path / 'two')]
    for a, b in zip(*histories, strict=True):
        assert a['metrics']['toy/mae'] == pytest.approx(b['metrics']['toy/mae'], abs=1e-6)

    # both processes test half of the data each; the predictions come in the order of the data
    checkpoint = trained / 'iter_17.pth'
    out = tmp_path / 'out/predictions.pt'
    run = tool('dist_test.sh', config, checkpoint, 2, '--out', out, PORT=free_port())
    assert run.returncode == 0, run.stderr[-3000:]
    predictions = torch.load(out, weights_only=True)
    tested = json.loads((tmp_path / 'two/test_metrics.json').read_text())
    assert len(predictions) == 23
    mean = sum(float(p['error']) for p in predictions) / 23
    assert tested['metrics']['toy/mae'] == pytest.approx(mean) == pytest.approx(histories[0][-1]['metrics']['toy/mae'])


def test_train_arguments(tool, tmp_path):
    """--seed, --amp, --auto-scale-lr and --cfg-options reach the run and its dumped config."""
    config = toy_config(tmp_path / 'unused', auto_scale_lr={'base_batch_size': 16})
    options = ['--cfg-options', 'model.width=6', 'train_cfg.max_iters=2']
    run = tool('train.py', config, '--work-dir', tmp_path / 'w', '--seed', 11, '--amp', '--auto-scale-lr', *options)
    assert run.returncode == 0, run.stderr[-2000:]
    dumped = next((tmp_path / 'w').glob('config_*.py')).read_text()
    for text in ("type='florence_mm.FlorenceAmpOptimWrapper'", "dtype='bfloat16'", 'seed=11', 'width=6'):
        assert text in dumped
    saved = torch.load(tmp_path / 'w/iter_2.pth', weights_only=True)
    assert saved['meta']['seed'] == 11
    assert saved['state_dict']['fc.0.weight'].shape == (6, 4)
    # 4 of 16 samples: a quarter of 0.01
    assert saved['optimizer']['param_groups'][0]['initial_lr'] == pytest.approx(0.0025)
    assert not (tmp_path / 'unused').exists()


def bad(tool, name, config, *arguments):
    run = tool(name, config, *arguments)
    lines = run.stderr.strip().split('\n')
    assert run.returncode == 2, run.stderr[-2000:]
    assert 'Traceback' not in run.stderr
    assert lines[-1].startswith('error: ')
    return lines[-1]


def test_bad_input_is_one_sentence(tool, tmp_path):
    config = toy_config(tmp_path / 'w')
    assert 'config nowhere.py does not exist' in bad(tool, 'train.py', 'nowhere.py')
    broken = {**config, 'train_dataloader': {**config['train_dataloader'], 'dataset': {'type': 'ToyDta'}}}
    assert "'ToyDta' is not registered in datasets; did you mean 'ToyData'?" in bad(tool, 'train.py', broken)
    assert not (tmp_path / 'w').exists() or not list((tmp_path / 'w').glob('*.pth'))
    (tmp_path / 'file').write_text('')
    assert 'cannot be made (Not a directory)' in bad(tool, 'train.py', config, '--work-dir', tmp_path / 'file/w')


def test_bad_checkpoints_are_one_sentence(tool, trained, tmp_path):
    config = toy_config(tmp_path / 'w')
    damaged = tmp_path / 'damaged.pth'
    damaged.write_bytes((trained / 'iter_17.pth').read_bytes()[:-2000])
    assert 'damaged.pth cannot be read as a checkpoint' in bad(tool, 'train.py', config, '--resume', damaged)
    assert 'missing.pth does not exist' in bad(tool, 'test.py', config, tmp_path / 'missing.pth')
