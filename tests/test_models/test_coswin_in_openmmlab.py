"""CoSwin in other people's projects: their config style, their default scope, their Runner."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

import florence_mm  # noqa: F401  (a config does it with custom_imports)

CLASSIFIER = """
custom_imports = dict(imports=['florence_mm'])
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='florence_mm.CoSwin', arch='micro', img_size=32, drop_path_rate=0.),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=128, loss=dict(type='CrossEntropyLoss'), topk=(1, )),
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, num_classes=2))
pipeline = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='ImageNet', data_root='{root}/data', split='', with_label=True, pipeline=pipeline,
                 metainfo=dict(classes=['left', 'right'])))
val_dataloader = dict(
    batch_size=8, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ImageNet', data_root='{root}/data', split='', with_label=True, pipeline=pipeline,
                 metainfo=dict(classes=['left', 'right'])))
val_evaluator = dict(type='Accuracy', topk=(1, ))
train_cfg = dict(by_epoch=True, max_epochs=6, val_interval=6)
val_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3))
work_dir = '{root}/work'
randomness = dict(seed=0)
default_hooks = dict(logger=dict(type='LoggerHook', interval=100))
"""

DETECTOR = """
custom_imports = dict(imports=['florence_mm'])
default_scope = 'mmdet'
model = dict(
    type='GFL',
    data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
    backbone=dict(type='florence_mm.CoSwin', arch='micro', img_size=64, patch_size=4, out_indices=(0, 1, 2),
                  drop_path_rate=0.),
    neck=dict(type='FPN', in_channels=[32, 64, 128], out_channels=32, start_level=0, num_outs=4),
    bbox_head=dict(
        type='GFLHead', num_classes=3, in_channels=32, feat_channels=32, stacked_convs=1,
        norm_cfg=dict(type='GN', num_groups=8),
        anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1,
                              strides=[4, 8, 16, 32]),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_dfl=dict(type='DistributionFocalLoss', loss_weight=0.25),
        reg_max=8, loss_bbox=dict(type='GIoULoss', loss_weight=2.0)),
    train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.6), max_per_img=10))
"""

# as in the README, with the preset for tests
RECOGNIZER = """
custom_imports = dict(imports=['florence_mm'])
_base_ = 'mmaction::recognition/tsn/tsn_imagenet-pretrained-r50_8xb32-1x1x3-100e_kinetics400-rgb.py'
model = dict(
    backbone=dict(_delete_=True, type='florence_mm.CoSwin', arch='micro', img_size=64, out_indices=(2,),
                  drop_path_rate=0.),
    cls_head=dict(num_classes=5, in_channels=128, dropout_ratio=0.))
"""


def write_pictures(root):
    """Two folders of noise, bright on the left or on the right."""
    import cv2

    rng = np.random.default_rng(0)
    for label, name in enumerate(('left', 'right')):
        (root / name).mkdir(parents=True)
        for i in range(16):
            picture = rng.integers(0, 100, (32, 32, 3), dtype=np.uint8)
            picture[:, 16 * label : 16 * label + 16] += 100
            cv2.imwrite(str(root / name / f'{i}.png'), picture)


def test_mmpretrain_classifier_trains_and_predicts(tmp_path):
    write_pictures(tmp_path / 'data')
    config = Config.fromstring(CLASSIFIER.replace('{root}', str(tmp_path)), '.py')
    runner = Runner.from_cfg(config)
    runner.train()
    assert type(runner.model.backbone).__name__ == 'CoSwin'
    assert runner.val_loop.evaluator.dataset_meta['classes'] == ['left', 'right']
    assert runner.message_hub.get_scalar('val/accuracy/top1').current() == 100
    batch = next(iter(runner.val_dataloader))
    predicted = runner.model.test_step(batch)
    assert [int(s.pred_label) for s in predicted] == [0] * 8


def test_mmdet_detector_takes_a_training_step():
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.utils import register_all_modules
    from mmengine.structures import InstanceData

    register_all_modules(init_default_scope=False)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromstring(DETECTOR, '.py').model)
        model.init_weights()
        sample = DetDataSample(metainfo={'img_shape': (96, 120), 'pad_shape': (96, 128), 'scale_factor': (1, 1)})
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[10.0, 12.0, 60.0, 70.0], [64.0, 8.0, 110.0, 60.0]]), labels=torch.tensor([0, 2])
        )
        data = model.data_preprocessor(
            {'inputs': [torch.randint(0, 255, (3, 96, 120), dtype=torch.uint8)], 'data_samples': [sample]}, True
        )
        losses = model(**data, mode='loss')
        loss, _ = model.parse_losses(losses)
        loss.backward()
    assert set(losses) == {'loss_cls', 'loss_bbox', 'loss_dfl'} and loss.isfinite()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.backbone.parameters())


def test_mmaction_recognizer_trains_a_step_and_predicts(tmp_path):
    from mmaction.registry import MODELS
    from mmaction.structures import ActionDataSample
    from mmaction.utils import register_all_modules
    from mmengine.optim import OptimWrapper

    register_all_modules(init_default_scope=False)
    (tmp_path / 'mine.py').write_text(RECOGNIZER)
    config = Config.fromfile(str(tmp_path / 'mine.py'))
    torch.manual_seed(0)
    # two videos with 3 frames each; (3, 3, 64, 64): frames, channels, height, width
    videos = [torch.randint(0, 255, (3, 3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    samples = [ActionDataSample().set_gt_label(label) for label in (1, 4)]
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(config.model)
        model.init_weights()
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), 0.1))
        before = [p.detach().clone() for p in model.backbone.parameters()]
        steps = [model.train_step({'inputs': videos, 'data_samples': samples}, wrapper) for _ in range(2)]
        losses = [step['loss'].item() for step in steps]
        assert losses[1] < losses[0]
        assert not any(torch.equal(p, old) for p, old in zip(model.backbone.parameters(), before, strict=True))

        def scores(frames):
            (sample,) = model.test_step({'inputs': [frames], 'data_samples': samples[:1]})
            return sample.pred_score

        model.eval()
        assert scores(videos[0]).shape == (5,) and float(scores(videos[0]).sum()) == pytest.approx(1)
        # the head averages over frames, so the order does not matter and one frame stands for equal ones
        torch.testing.assert_close(scores(videos[0].flip(0)), scores(videos[0]))
        still = videos[0][:1]
        torch.testing.assert_close(scores(still.repeat(3, 1, 1, 1)), scores(still))
        assert not torch.allclose(scores(still), scores(videos[0]), atol=1e-6)


@pytest.mark.parametrize('scope', ['mmdet', 'mmpretrain', 'mmaction'])
def test_misspelt_arch_is_named_in_a_config_of_any_scope(scope):
    from mmengine.registry import MODELS

    with DefaultScope.overwrite_default_scope(scope), pytest.raises(Exception, match="did you mean 'base'"):
        MODELS.build({'type': 'florence_mm.CoSwin', 'arch': 'bas'})
