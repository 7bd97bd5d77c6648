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
MOTIONS = 'configs/video_coswin/video_coswin-micro_2xb5-3e_clips.py'
METER = (
    'configs/unicl/unicl_coswin-micro_1xb64-7e_large-digit-crops.py',
    'configs/meter/meter_coswin-micro_1xb64-4e_large-digit-crops.py',
    'configs/meter/meter_coswin-micro_1xb32-9e_large-digits.py',
)
METER_VQA = 'configs/meter/meter_coswin-micro_1xb64-5e_large-digit-vqa.py'
METER_CAPTIONS = 'configs/meter/meter_coswin-micro_caption_1xb32-4e_large-digits.py'
LOADERS = ('train', 'val', 'test')


def run(*command: object, cwd: Path = ROOT) -> None:
    env = {**os.environ, 'PYTHON': sys.executable, 'PORT': '29641'}
    subprocess.run([str(part) for part in command], cwd=cwd, env=env, check=True)


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


def train_on_crops(quickstart, tmp_path, held_out=()):
    """Scenes, and towers that know the digits cut out of them."""
    data, crops, towers = tmp_path / 'scenes', tmp_path / 'crops', tmp_path / 'towers'
    converters = 'tools/dataset_converters'
    options = ('--held-out', *held_out) if held_out else ()
    run(sys.executable, f'{converters}/prepare_scenes.py', '--out', data, *options)
    for split in ('train', 'test'):
        folders = (data / f'annotations/{split}.json', data / split, '--out', crops / split)
        run(sys.executable, f'{converters}/crop_boxes.py', *folders, '--size', 32)
    options = [f'load_from={quickstart / "epoch_36.pth"}', f'train_dataloader.dataset.ann_file={crops}/train.jsonl']
    options += [f'{loader}_dataloader.dataset.ann_file={crops}/test.jsonl' for loader in ('val', 'test')]
    run(sys.executable, 'tools/train.py', SCENE_CROPS, '--seed', 0, '--work-dir', towers, '--cfg-options', *options)
    return data, towers / 'epoch_10.pth'


@pytest.mark.slow
def test_zero_shot_detection_of_scenes(quickstart, tmp_path):
    data, towers = train_on_crops(quickstart, tmp_path, ('three', 'seven'))
    options = [f'{loader}_dataloader.dataset.data_root={data}' for loader in LOADERS]
    for part in ('detector.backbone', 'classifier'):
        options.append(f'model.{part}.init_cfg.checkpoint={towers}')
    work_dir = tmp_path / 'run'
    run('bash', 'tools/dist_train.sh', ZERO_SHOT_SCENES, 2, '--seed', 0, '--work-dir', work_dir,
        '--cfg-options', *options)  # fmt: skip
    scores = json.loads((work_dir / 'metrics.json').read_text())['metrics']
    assert scores['bbox/AP50'] >= 0.80
    assert scores['bbox/held_out_AP50'] >= 0.70  # "three" and "seven"


@pytest.mark.slow
def test_motions(quickstart, tmp_path):
    data, work_dir = tmp_path / 'clips', tmp_path / 'run'
    run(sys.executable, 'tools/dataset_converters/prepare_clips.py', '--out', data)
    options = [f'{loader}_dataloader.dataset.data_root={data}' for loader in LOADERS]
    options.append(f'model.backbone.init_cfg.checkpoint={quickstart / "epoch_36.pth"}')
    run('bash', 'tools/dist_train.sh', MOTIONS, 2, '--seed', 0, '--work-dir', work_dir, '--cfg-options', *options)
    scores = json.loads((work_dir / 'metrics.json').read_text())['metrics']
    assert scores['acc/top1'] >= 0.90


@pytest.mark.slow
def test_questions_and_captions_of_scenes(quickstart, tmp_path):
    # the commands of docs/meter.md, in a folder of their own
    (tmp_path / 'work_dirs').mkdir()
    (tmp_path / 'work_dirs/quickstart').symlink_to(quickstart)

    def call(script, *arguments):
        run(sys.executable, ROOT / script, *arguments, cwd=tmp_path)

    def train(config):
        call('tools/train.py', ROOT / config, '--seed', 0)
        return json.loads((tmp_path / 'work_dirs' / Path(config).stem / 'metrics.json').read_text())['metrics']

    converters, scenes = 'tools/dataset_converters', 'data/large_digits'
    sizes = '--train 4000 --test 400 --size 64 --digits 1 3 --heights 0.35 0.55 --seed 1 --named-inks'
    call(f'{converters}/prepare_scenes.py', '--out', scenes, *sizes.split())
    call(f'{converters}/prepare_questions.py', '--scenes', scenes, '--out', 'data/large_digit_questions')
    for split in ('train', 'test'):
        folders = (f'{scenes}/annotations/{split}.json', f'{scenes}/{split}')
        out = f'data/large_digit_crops/{split}'
        call(f'{converters}/crop_boxes.py', *folders, '--out', out, '--size', 32, '--captions')
    for config in METER:
        train(config)
    scores = train(METER_VQA)
    assert scores['vqa/question_only'] <= scores['vqa/accuracy'] - 0.25
    assert scores['vqa/accuracy'] >= 0.80
    assert train(METER_CAPTIONS)['caption/CIDEr'] >= 2.5
