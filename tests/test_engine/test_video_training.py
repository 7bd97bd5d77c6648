"""A recognizer of mmaction2 on our clips through our runner, and what it says of unusable videos and lists."""

import json
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from florence_mm.config.image_size import set_image_size
from florence_mm.config.pick import find_step
from florence_mm.corpora.clips import ClipOptions, write_clips
from florence_mm.engine.runner import FlorenceRunner
from florence_mm.errors import user_sentence
from florence_mm.formats.mp4 import encode_mp4
from florence_mm.registry import DATASETS, MODELS


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    out = tmp_path_factory.mktemp('clips')
    write_clips(out, ClipOptions(train=18, test=9, size=32, frames=4))
    return out


@pytest.fixture
def folder(clips, tmp_path):
    return shutil.copytree(clips, tmp_path / 'clips')


@pytest.fixture
def config(folder, tmp_path):
    """The micro config, from scratch on four frames, two epochs of three steps."""
    (tmp_path / 'small.py').write_text("_base_ = 'florence_mm::video_coswin/video_coswin-micro_2xb5-3e_clips.py'")
    cfg = Config.fromfile(tmp_path / 'small.py')
    cfg.model.backbone.init_cfg = None
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(folder)
        for step in loader.dataset.pipeline:
            if step.type == 'mmaction.SampleFrames':
                step.clip_len = 2
        loader.update(batch_size=6, num_workers=0, persistent_workers=False)
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    cfg.work_dir = str(tmp_path / 'run')
    cfg.experiment_name = tmp_path.name
    cfg.randomness = {'seed': 0}
    return cfg


def sentence(cfg):
    """What the command would say; fails where it would show a stack trace."""
    with pytest.raises(Exception) as error:
        FlorenceRunner.from_cfg(cfg).train()
    said = user_sentence(error.value)
    assert said is not None and '\n' not in said
    return said


def test_trains_validates_and_names_its_classes(config, tmp_path):
    runner = FlorenceRunner.from_cfg(config)
    runner.train()
    metrics = json.loads((tmp_path / 'run/metrics.json').read_text())['metrics']
    assert {'acc/top1', 'acc/top5', 'acc/mean1'} <= set(metrics)
    assert runner.iter == 3
    checkpoint = torch.load(tmp_path / 'run/epoch_1.pth', weights_only=True)
    assert tuple(checkpoint['meta']['dataset_meta']['classes'])[6:8] == ('clockwise', 'counterclockwise')


@pytest.mark.parametrize('workers', [0, 1])
def test_a_damaged_video_ends_the_run_with_its_name_and_line(config, folder, workers):
    (folder / 'train/000007.mp4').write_bytes((folder / 'train/000007.mp4').read_bytes()[:300])
    config.train_dataloader.num_workers = workers
    said = sentence(config)
    assert 'train.txt, line 8: ' in said and 'train/000007.mp4' in said


def test_unusable_lists_end_the_run_with_a_sentence(config, folder):
    (folder / 'train.txt').write_text('train/000000.mp4 9\n' * 18)
    assert "train.txt, line 1: class 9 of 'train/000000.mp4' is outside 0 to 8" in sentence(config)
    config.train_dataloader.dataset.classes = None
    assert 'train.txt, line 1: class 9 is outside 0 to 8, the classes of the recognizer' in sentence(config)
    (folder / 'train.txt').write_text('\n')
    assert 'train.txt lists no videos' in sentence(config)
    (folder / 'train.txt').unlink()
    assert 'there is no list of videos' in sentence(config)


def test_twelve_views_are_four_clips_by_three_crops_and_average_to_one_prediction(tmp_path):
    """Views are told apart by their numbers: a frame's grey says when, a column's colour where."""
    frames = np.zeros((16, 64, 96, 3), np.uint8)
    frames[..., 0] = 15 * np.arange(16)[:, None, None]
    frames[:, :, 40:56, 1] = 250
    (tmp_path / 'a.mp4').write_bytes(encode_mp4(frames))
    (tmp_path / 'list.txt').write_text('a.mp4 1\n')
    (tmp_path / 'k400.py').write_text("_base_ = 'florence_mm::video_coswin/video_coswin-t_8xb8-30e_kinetics400.py'")
    cfg = Config.fromfile(tmp_path / 'k400.py')
    pipeline = cfg.test_dataloader.dataset.pipeline
    find_step(pipeline, 'SampleFrames').update(clip_len=4, frame_interval=1)
    set_image_size(cfg, 32)
    data = DATASETS.build(
        {**cfg.test_dataloader.dataset, 'data_root': str(tmp_path), 'ann_file': 'list.txt', 'data_prefix': ''}
    )
    batch = {key: [value] for key, value in data[0].items()}
    views = batch['inputs'][0]
    assert views.shape == (12, 3, 4, 32, 32)
    red = views[:, 0].float().mean((1, 2, 3)) / 15  # the mean of a clip's four frames
    torch.testing.assert_close(red, torch.tensor([1.5, 5.5, 9.5, 13.5] * 3), atol=0.4, rtol=0)
    # crops begin at columns 0, 16 and 8 of 48: the green bar, columns 20 to 28, is at 20, 4 and 12 in them
    green = views[::4, 1, 0].float().mean(1) > 125
    assert [row.nonzero()[0].item() for row in green] == [20, 4, 12]

    cfg.model.backbone.update(arch='micro', init_cfg=None)
    cfg.model.cls_head.update(num_classes=3, in_channels=128)
    with DefaultScope.overwrite_default_scope('florence_mm'):
        torch.manual_seed(0)
        model = MODELS.build(cfg.model).eval()
    torch.nn.init.normal_(model.cls_head.fc_cls.weight, std=3.0)
    with torch.no_grad():
        result = model.test_step(batch)[0]
        inputs = model.data_preprocessor({'inputs': [views], 'data_samples': batch['data_samples']})['inputs'][0]
        logits = model.cls_head(model.backbone(inputs))
    assert logits.std(0).max() > 1e-3
    torch.testing.assert_close(result.pred_score, logits.softmax(-1).mean(0))
