"""Scores of the embedded tasks, trained from nothing: minutes each, run by ``make test-slow``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCENES = 'configs/dynamic_head/atss_coswin-micro_fpn_dyhead_2xb4-8e_scenes.py'


def run(*command: object) -> None:
    env = {**os.environ, 'PYTHON': sys.executable, 'PORT': '29641'}
    subprocess.run([str(part) for part in command], cwd=ROOT, env=env, check=True)


@pytest.fixture(scope='module')
def quickstart(tmp_path_factory):
    folder = tmp_path_factory.mktemp('quickstart')
    run(sys.executable, 'tools/quickstart.py', '--work-dir', folder / 'run', '--data', folder / 'digits')
    return folder / 'run'


@pytest.mark.slow
def test_quickstart(quickstart):
    metrics = json.loads((quickstart / 'metrics.json').read_text())
    assert metrics['zero_shot_top1'] >= 0.985
    assert metrics['zero_shot_top1'] > metrics['pixel_logistic_regression_top1']


@pytest.mark.slow
def test_scenes(quickstart, tmp_path):
    data = tmp_path / 'scenes'
    run(sys.executable, 'tools/dataset_converters/prepare_scenes.py', '--out', data)
    options = [f'{loader}_dataloader.dataset.data_root={data}' for loader in ('train', 'val', 'test')]
    options.append(f'model.backbone.init_cfg.checkpoint={quickstart / "epoch_36.pth"}')
    work_dir = tmp_path / 'run'
    run('bash', 'tools/dist_train.sh', SCENES, 2, '--seed', 0, '--work-dir', work_dir, '--cfg-options', *options)
    scores = json.loads((work_dir / 'metrics.json').read_text())['metrics']
    assert scores['bbox/AP50'] >= 0.85
    assert scores['bbox/AP'] >= 0.55
