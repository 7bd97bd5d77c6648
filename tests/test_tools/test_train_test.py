"""The commands, as a user runs them."""

import json
import os
import runpy
import socket
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from toy_project import toy_config

REPOSITORY = Path(__file__).parents[2]
DIGITS = next((REPOSITORY / 'configs/unicl').glob('*micro*e_digits.py'))


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
    from florence_mm.engine import FlorenceRunner

    folder = tmp_path_factory.mktemp('trained')
    FlorenceRunner.from_cfg(Config({**without_dropout(folder, 4), 'experiment_name': 'trained'})).train()
    return folder


def test_two_processes_equal_one_with_the_batch_of_both(process, two_processes, trained, tmp_path):
    """Data, augmentation and averaged gradients: the same weights but for the order of floating-point sums."""
    config = without_dropout(tmp_path / 'two', 2, launcher='pytorch')
    run = process('dist_train.sh', config, 2, PORT=free_port())
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
    Config(config).dump(str(tmp_path / 'two.py'))

    def work():
        sys.argv = ['test.py', '--launcher', 'pytorch', str(tmp_path / 'two.py'), str(checkpoint), '--out', str(out)]
        runpy.run_path(str(REPOSITORY / 'tools/test.py'), run_name='__main__')

    two_processes(work)
    predictions = torch.load(out, weights_only=True)
    tested = json.loads((tmp_path / 'two/test_metrics.json').read_text())
    assert len(predictions) == 23
    mean = sum(float(p['error']) for p in predictions) / 23
    assert tested['metrics']['toy/mae'] == pytest.approx(mean) == pytest.approx(histories[0][-1]['metrics']['toy/mae'])


def test_a_comparison_keeps_the_predictions_of_both(tool, trained, tmp_path, monkeypatch):
    class Lowered(Hook):
        """Stands in for a precision: the model gives other numbers."""

        def __init__(self, precision):
            assert precision == 'bf16'

        def before_test_iter(self, runner, batch_idx, data_batch=None):
            runner.model.log_scale.data += 1.0

    monkeypatch.setattr('florence_mm.engine.hooks.precision.PrecisionHook', Lowered)
    config, checkpoint = without_dropout(tmp_path / 'w', 4), trained / 'iter_17.pth'
    options = ['--compare', '--precision', 'bf16', '--out']
    status, out, error = tool('test.py', config, checkpoint, *options, tmp_path / 'o.json')
    assert status == 0, error
    files = [json.loads((tmp_path / name).read_text()) for name in ('o_fp32.json', 'o.json')]
    maes = [sum(sample['error'] for sample in file) / len(file) for file in files]
    assert f'toy/mae: {maes[0]:.4f} in fp32, {maes[1]:.4f} in bf16' in out and maes[0] != maes[1]
    # neither file may be what is read
    weights = tmp_path / 'o_fp32.pt'
    weights.write_bytes(checkpoint.read_bytes())
    status, _, error = tool('test.py', config, weights, *options, tmp_path / 'o.pt')
    assert status == 2 and 'o_fp32.pt is the input' in error


@pytest.mark.parametrize(
    ('script', 'given', 'asked'),
    [
        ('dist_train.sh', ['config.py', '8', '--seed', '3'], ['train.py', 'config.py', '--seed', '3']),
        ('dist_test.sh', ['config.py', 'a b.pth', '8', '--out', 'o.pt'],
         ['test.py', 'config.py', 'a b.pth', '--out', 'o.pt']),
        ('dist_evaluate.sh', ['8', '--only', 'vqa'], ['evaluate.py', '--only', 'vqa']),
    ],
)  # fmt: skip
def test_processes(process, tmp_path, script, given, asked):
    """A stand-in for Python writes down what it was asked for."""
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\nprintf \'%s\\n\' "$@"\n')
    python.chmod(0o755)
    run = process(script, *given, PYTHON=str(python))
    assert run.returncode == 0, run.stderr
    tools = REPOSITORY / 'tools'
    assert run.stdout.splitlines() == [str(tools / 'processes.py'), '8', str(tools / asked[0]), *asked[1:]]
    if given[0] != '8':  # which is the only argument that a script must have
        run = process(script, *given[: given.index('8')], PYTHON=str(python))
        assert run.returncode == 2 and not run.stdout and run.stderr.startswith('usage: ')


@pytest.mark.parametrize(
    ('script', 'rest', 'last'),
    [
        ('slurm_train.sh', ['a work dir', '--seed', '3'], ['train.py', '--work-dir', 'a work dir', '--seed', '3']),
        ('slurm_test.sh', ['last.pth', '--out', 'o.pt'], ['test.py', 'last.pth', '--out', 'o.pt']),
    ],
)
def test_slurm(process, tmp_path, script, rest, last):
    """A stand-in for srun writes down what it was asked for."""
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin/srun').write_text('#!/bin/sh\nprintf \'%s\\n\' "$@"\n')
    (tmp_path / 'bin/srun').chmod(0o755)
    path = f'{tmp_path / "bin"}:{os.environ["PATH"]}'
    run = process(script, 'partition', 'job', 'config.py', *rest, PATH=path, GPUS='16', SRUN_ARGS='--a --b')
    assert run.returncode == 0, run.stderr
    asked = run.stdout.splitlines()
    at = asked.index('-u')
    assert asked[:at] == [
        *('-p', 'partition', '--job-name=job', '--gres=gpu:8', '--ntasks=16', '--ntasks-per-node=8'),
        *('--cpus-per-task=8', '--kill-on-bad-exit=1', '--a', '--b', sys.executable),
    ]
    tool, *given = asked[at + 1 :]
    assert [Path(tool).name, *given] == [last[0], '--launcher', 'slurm', 'config.py', *last[1:]]
    # one argument is missing
    run = process(script, 'partition', 'job', 'config.py', PATH=path)
    assert run.returncode == 2 and not run.stdout
    assert run.stderr.startswith('usage: ') and 'PARTITION JOB_NAME CONFIG' in run.stderr


def test_train_arguments(tool, tmp_path):
    """--seed, --amp, --auto-scale-lr and --cfg-options reach the run and its dumped config."""
    config = toy_config(tmp_path / 'unused', auto_scale_lr={'base_batch_size': 16}, experiment_name='arguments')
    options = ['--cfg-options', 'model.width=6', 'train_cfg.max_iters=2']
    arguments = ['--work-dir', tmp_path / 'w', '--seed', 11, '--amp', '--auto-scale-lr']
    status, _, err = tool('train.py', config, *arguments, *options)
    assert status == 0, err[-2000:]
    dumped = next((tmp_path / 'w').glob('config_*.py')).read_text()
    for text in ("type='florence_mm.FlorenceAmpOptimWrapper'", "dtype='bfloat16'", 'seed=11', 'width=6'):
        assert text in dumped
    saved = torch.load(tmp_path / 'w/iter_2.pth', weights_only=True)
    assert saved['meta']['seed'] == 11
    assert saved['state_dict']['fc.0.weight'].shape == (6, 4)
    # 4 of 16 samples: a quarter of 0.01
    assert saved['optimizer']['param_groups'][0]['initial_lr'] == pytest.approx(0.0025)
    assert not (tmp_path / 'unused').exists()


def test_bad_input_in_a_process_of_its_own(process, tmp_path):
    run = process('train.py', 'nowhere.py')
    assert (run.returncode, run.stdout) == (2, '')
    assert run.stderr == 'error: config nowhere.py does not exist; check the path\n'


@pytest.fixture
def refused(tool):
    """Run a tool that must end with exit status 2 and one sentence; returns the sentence."""

    def run(name, config, *arguments):
        status, _, err = tool(name, config, *arguments)
        assert status == 2 and 'Traceback' not in err
        return err.strip().split('\n')[-1]

    return run


def test_bad_input_is_one_sentence(refused, tmp_path):
    config = toy_config(tmp_path / 'w', experiment_name='refused')
    misspelt = {**config, 'train_dataloader': {**config['train_dataloader'], 'dataset': {'type': 'ToyDta'}}}
    assert "'ToyDta' is not registered in datasets; did you mean 'ToyData'?" in refused('train.py', misspelt)
    assert not (tmp_path / 'w').exists() or not list((tmp_path / 'w').glob('*.pth'))
    (tmp_path / 'file').write_text('')
    assert 'cannot be made (Not a directory)' in refused('train.py', config, '--work-dir', tmp_path / 'file/w')
    assert "has no key 'modle'; did you mean 'model'?" in refused('train.py', config, '--cfg-options', 'modle.width=1')
    assert 'needs auto_scale_lr=dict(base_batch_size=...)' in refused('train.py', config, '--auto-scale-lr')
    (tmp_path / 'broken.py').write_text('model = dict(\n')
    (tmp_path / 'child.py').write_text("_base_ = ['broken.py']\n")
    for name in ('broken.py', 'child.py'):
        assert f'{tmp_path}/broken.py, line 1: ' in refused('train.py', tmp_path / name)
    (tmp_path / 'orphan.py').write_text("_base_ = ['parent.py']\n")
    assert 'orphan.py, does not exist; check the path' in refused('train.py', tmp_path / 'orphan.py')
    (tmp_path / 'imports.py').write_text("custom_imports = dict(imports=['no_such_module'])\n")
    assert 'custom_imports of ' in refused('train.py', tmp_path / 'imports.py')
    assert 'no package no_such_package is installed' in refused('train.py', 'no_such_package::x.py')


def test_bad_checkpoints_are_one_sentence(refused, trained, tmp_path):
    config = toy_config(tmp_path / 'w', experiment_name='refused_checkpoints')
    damaged = tmp_path / 'damaged.pth'
    damaged.write_bytes((trained / 'iter_17.pth').read_bytes()[:-2000])
    assert 'damaged.pth cannot be read as a checkpoint' in refused('train.py', config, '--resume', damaged)
    assert 'missing.pth does not exist' in refused('train.py', config, '--resume', tmp_path / 'missing.pth')
    assert 'missing.pth does not exist' in refused('test.py', config, tmp_path / 'missing.pth')
    good = trained / 'iter_17.pth'
    assert 'must end in .pt or .json' in refused('test.py', config, good, '--out', tmp_path / 'x.pkl')
    assert 'ToyModel predicts none of them' in refused('test.py', config, good, '--show-dir', tmp_path / 'show')


def test_pictures_and_predictions_of_the_digits(tool, tmp_path):
    """Two held-out digits of each class through the whole command, with an untrained model."""
    from florence_mm.corpora.digits import write_digits
    from florence_mm.registry import MODELS

    write_digits(tmp_path / 'data/digits')
    cfg = Config.fromfile(str(DIGITS))
    model = MODELS.build(cfg.model)
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    out, show = tmp_path / 'predictions.json', tmp_path / 'show'
    options = ['--cfg-options', 'test_dataloader.dataset.indices=20', 'default_hooks.class_names.templates=none']
    arguments = [tmp_path / 'weights.pth', '--work-dir', tmp_path / 'w', '--out', out, '--show-dir', show]
    status, _, err = tool('test.py', DIGITS, *arguments, '--show-interval', 5, *options)
    assert status == 0, err
    predictions = json.loads(out.read_text())
    assert len(predictions) == 20 and all(len(p['pred_score']) == 10 for p in predictions)
    metrics = json.loads((tmp_path / 'w/test_metrics.json').read_text())['metrics']
    right = sum(p['pred_label'] == p['gt_label'] for p in predictions)
    assert metrics['zero_shot/top1'] == pytest.approx(right / 20)
    pictures = sorted(show.iterdir())
    assert [path.name[:7] for path in pictures] == ['000000_', '000005_', '000010_', '000015_']
    from PIL import Image

    assert all(Image.open(path).size == (290, 112) for path in pictures)
