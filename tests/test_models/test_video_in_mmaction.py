"""VideoCoSwin in mmaction2's recognizer: their config style, their default scope, their data structures."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from florence_mm.models.backbones import CoSwin

CONFIG = """
custom_imports = dict(imports=['florence_mm'])
default_scope = 'mmaction'
model = dict(
    type='Recognizer3D',
    backbone=dict(
        type='florence_mm.VideoCoSwin', arch='micro', drop_path_rate=0.,
        init_cfg=dict(type='florence_mm.Pretrained', checkpoint='{checkpoint}', prefix='image_encoder.')),
    cls_head=dict(type='I3DHead', num_classes=2, in_channels=128, spatial_type='avg', dropout_ratio=0.,
                  average_clips='prob'),
    data_preprocessor=dict(type='ActionDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, format_shape='NCTHW'))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-3), clip_grad=dict(max_norm=5.))
"""


def clips(views=1):
    """Two clips of a bright bar that moves right (label 0) and left (1); single frames do not tell them apart."""
    from mmaction.structures import ActionDataSample

    inputs, samples = [], []
    for label in (0, 1):
        clip = torch.full((views, 3, 8, 32, 32), 40, dtype=torch.uint8)
        for t in range(8):
            at = 3 * (7 - t if label else t)
            clip[:, :, t, :, at : at + 8] = 220
        inputs.append(clip)
        samples.append(ActionDataSample().set_gt_label(label))
    return {'inputs': inputs, 'data_samples': samples}


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    image = CoSwin('micro')
    torch.save({f'image_encoder.{k}': v for k, v in image.state_dict().items()}, tmp_path / 'unicl.pth')
    return tmp_path / 'unicl.pth', image


def build(checkpoint, seed=0):
    from mmaction.registry import MODELS
    from mmaction.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    config = Config.fromstring(CONFIG.replace('{checkpoint}', str(checkpoint)), '.py')
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope('mmaction'):
        model = MODELS.build(config.model)
        model.init_weights()
    return model, config


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_recognizer_inherits_the_image_model_trains_and_predicts(checkpoint, seed):
    from mmengine.optim import build_optim_wrapper

    model, config = build(checkpoint[0], seed)
    kernel = model.backbone.patch_embed.proj.weight
    torch.testing.assert_close(kernel.sum(2), checkpoint[1].patch_embed.proj.weight)

    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    model.train()
    losses = [model.train_step(clips(), wrapper)['loss'].item() for _ in range(20)]
    assert losses[-1] < 0.05 and losses[0] > 0.6  # ends below 0.01
    model.eval()
    results = model.test_step(clips(views=3))  # the mean probability of three views
    assert [int(r.pred_label) for r in results] == [0, 1]
    assert all(r.pred_score.max() > 0.9 for r in results)  # 0.99
    assert all(r.pred_score.sum().item() == pytest.approx(1) for r in results)


def test_one_step_reaches_every_parameter(checkpoint):
    model, _ = build(checkpoint[0])
    data = model.data_preprocessor(clips(), training=True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())
