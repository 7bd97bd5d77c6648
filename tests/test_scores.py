"""Scores of the embedded tasks, trained from nothing: minutes each, run by ``make test-slow``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCENES = 'configs/dynamic_head/atss_coswin-micro_fpn_dyhead_2xb4-8e_scenes.py'
SCENE_CROPS = 'configs/unicl/unicl_coswin-micro_1xb64-10e_scene-crops.py'
ZERO_SHOT_SCENES = 'configs/dynamic_head/zero-shot_coswin-micro_fpn_dyhead_2xb4-3e_scenes.py'
LOADERS = ('train', 'val', 'test')


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
    options = [f'{loader}_dataloader.dataset.data_root={data}' for loader in LOADERS]
    options.append(f'model.backbone.init_cfg.checkpoint={quickstart / "epoch_36.pth"}')
    work_dir = tmp_path / 'run'
    run('bash', 'tools/dist_train.sh', SCENES, 2, '--seed', 0, '--work-dir', work_dir, '--cfg-options', *options)
    scores = json.loads((work_dir / 'metrics.json').read_text())['metrics']
    assert scores['bbox/AP50'] >= 0.85
    assert scores['bbox/AP'] >= 0.55


@pytest.mark.slow
def test_zero_shot_detection_of_scenes(quickstart, tmp_path):
    data, crops, towers = tmp_path / 'scenes', tmp_path / 'crops', tmp_path / 'towers'
    converters = 'tools/dataset_converters'
    run(sys.executable, f'{converters}/prepare_scenes.py', '--out', data, '--held-out', 'three', 'seven')
    for split in ('train', 'test'):
        folders = (data / f'annotations/{split}.json', data / split, '--out', crops / split)
        run(sys.executable, f'{converters}/crop_boxes.py', *folders, '--size', 32)
    options = [f'load_from={quickstart / "epoch_36.pth"}', f'train_dataloader.dataset.ann_file={crops}/train.jsonl']
    options += [f'{loader}_dataloader.dataset.ann_file={crops}/test.jsonl' for loader in ('val', 'test')]
    run(sys.executable, 'tools/train.py', SCENE_CROPS, '--seed', 0, '--work-dir', towers, '--cfg-options', *options)
    options = [f'{loader}_dataloader.dataset.data_root={data}' for loader in LOADERS]
    for part in ('detector.backbone', 'classifier'):
        options.append(f'model.{part}.init_cfg.checkpoint={towers / "epoch_10.pth"}')
    work_dir = tmp_path / 'run'
    run('bash', 'tools/dist_train.sh', ZERO_SHOT_SCENES, 2, '--seed', 0, '--work-dir', work_dir,
        '--cfg-options', *options)  # fmt: skip
    scores = json.loads((work_dir / 'metrics.json').read_text())['metrics']
    assert scores['bbox/AP50'] >= 0.80
    assert scores['bbox/held_out_AP50'] >= 0.70  # "three" and "seven"
