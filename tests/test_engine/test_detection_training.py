"""An mmdet detector on our scenes through our runner."""

import json

import pytest
from mmengine.config import Config

from florence_mm.corpora.scenes import SceneOptions, write_scenes
from florence_mm.engine.runner import FlorenceRunner
from florence_mm.errors import UsageError


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    out = tmp_path_factory.mktemp('scenes')
    write_scenes(out, SceneOptions(train=8, test=3, size=64, digits=(1, 2)))
    return out


@pytest.fixture
def config(scenes, tmp_path):
    """The base config of the scenes with the smallest ATSS; no pretrained weights, a few steps."""
    (tmp_path / 'small.py').write_text(
        "_base_ = ['florence_mm::_base_/datasets/scenes_detection.py', 'florence_mm::_base_/default_runtime.py']"
    )
    cfg = Config.fromfile(tmp_path / 'small.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(scenes)
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.model = {
        'type': 'mmdet.ATSS',
        'data_preprocessor': {'type': 'mmdet.DetDataPreprocessor', 'mean': [128] * 3, 'std': [64] * 3},
        'backbone': {'type': 'florence_mm.CoSwin', 'arch': 'micro', 'out_indices': (1, 2)},
        'neck': {'type': 'mmdet.FPN', 'in_channels': [64, 128], 'out_channels': 16, 'num_outs': 2},
        'bbox_head': {
            'type': 'mmdet.ATSSHead',
            'num_classes': 10,
            'in_channels': 16,
            'feat_channels': 16,
            'stacked_convs': 0,
            'loss_bbox': {'type': 'GIoULoss'},
            'anchor_generator': {
                'type': 'AnchorGenerator',
                'ratios': [1.0],
                'octave_base_scale': 4,
                'scales_per_octave': 1,
                'strides': [8, 16],
            },
        },
        'train_cfg': {'assigner': {'type': 'ATSSAssigner', 'topk': 9}, 'allowed_border': -1, 'pos_weight': -1},
        'test_cfg': {
            'nms_pre': 100,
            'min_bbox_size': 0,
            'score_thr': 0.0,
            'nms': {'type': 'nms', 'iou_threshold': 0.6},
            'max_per_img': 20,
        },
    }
    cfg.work_dir = str(tmp_path / 'run')
    cfg.optim_wrapper = {'optimizer': {'type': 'SGD', 'lr': 0.01}}
    cfg.train_cfg = {'type': 'florence_mm.IterTrainLoop', 'max_iters': 4, 'val_interval': 4}
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=100)
    cfg.val_cfg = {}
    cfg.test_dataloader = cfg.test_evaluator = None
    cfg.default_scope = 'mmdet'  # the head's defaults name their types without a scope
    cfg.randomness = {'seed': 0}
    return cfg


def test_trains_and_validates(config, tmp_path):
    runner = FlorenceRunner.from_cfg(config)
    runner.train()
    metrics = json.loads((tmp_path / 'run/metrics.json').read_text())['metrics']
    assert {'bbox/AP', 'bbox/AP50', 'bbox/AR'} <= set(metrics) and 0 <= metrics['bbox/AP'] <= 1
    assert runner.val_dataloader.dataset.metainfo['classes'][3] == 'three'


def test_a_loss_that_is_nan_ends_training_with_a_sentence(config, tmp_path):
    # weights overflow in the first step
    config.optim_wrapper.optimizer.lr = 1e30
    config.train_cfg.max_iters = config.train_cfg.val_interval = 12
    with pytest.raises(UsageError, match='not finite in 3 iterations in a row.*lower the learning rate') as error:
        FlorenceRunner.from_cfg(config).train()
    assert 'loss_cls' in str(error.value) and '\n' not in str(error.value)
    assert not list((tmp_path / 'run').glob('*.pth'))
