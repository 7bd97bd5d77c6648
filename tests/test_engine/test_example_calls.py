import runpy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from torch import nn

from florence_mm.engine.complexity import count_macs
from florence_mm.engine.example_calls import clip_size, example_calls
from florence_mm.registry import MODELS

ROOT = Path(__file__).parents[2]
tiny_meter = runpy.run_path(str(ROOT / 'tests/test_models/tiny_meter.py'))['tiny_meter']


def built(name, scope):
    cfg = get_config(name)
    with DefaultScope.overwrite_default_scope(scope):
        return cfg, MODELS.build(cfg.model)


def test_a_two_stage_detector_by_hand():
    """The second stage has the proposals that the test keeps at most, whatever suppression leaves of them."""
    cfg, model = built('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'mmdet')
    cfg.model.test_cfg.rpn.max_per_img = model.rpn_head.test_cfg.max_per_img = 30
    ((what, run),) = example_calls(model, (64, 96))
    macs = count_macs(model, run)
    head = 256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * 81 + 1024 * 4 * 80
    assert what == 'one image' and macs['roi_head.bbox_head'] == 30 * head
    # 3 x 3 convolution, 3 scores and 12 offsets at each place of maps of strides 4 to 64
    places = sum(-(-64 // stride) * -(-96 // stride) for stride in (4, 8, 16, 32, 64))
    assert macs['rpn_head'] == places * (9 * 256 * 256 + 256 * 15)


def test_a_detector_of_queries_gets_the_size_of_its_image():
    _, model = built('mmdet::detr/detr_r50_8xb2-150e_coco.py', 'mmdet')
    ((what, run),) = example_calls(model, (64, 64))
    assert what == 'one image' and count_macs(model, run)['bbox_head.fc_cls'] == 6 * 100 * 256 * 81


@pytest.mark.parametrize(
    ('name', 'what', 'frames'),
    [
        ('tsn/tsn_imagenet-pretrained-r50_8xb32-1x1x3-100e_kinetics400-rgb.py', 'one view of 25 frames', 25),
        ('i3d/i3d_imagenet-pretrained-r50_8xb8-32x2x1-100e_kinetics400-rgb.py', 'one clip of 32 frames', None),
    ],
)
def test_recognizers(name, what, frames):
    cfg, model = built(f'mmaction::recognition/{name}', 'mmaction')
    ((called, run),) = example_calls(model, (32, 32), clip_size(cfg))
    macs = count_macs(model, run)
    assert called == what and macs['cls_head.fc_cls'] == 2048 * 400 * (frames or 1) or macs['cls_head'] == 2048 * 400
    if frames:
        assert macs['backbone.conv1'] == frames * 16 * 16 * 64 * 3 * 49


def test_the_size_of_a_clip():
    step = {'type': 'SampleFrames', 'clip_len': 8, 'num_clips': 4}
    train = {'dataset': {'pipeline': [{'type': 'SampleFrames', 'clip_len': 16}]}}
    assert clip_size(ConfigDict(test_dataloader={'dataset': {'pipeline': [step]}}, train_dataloader=train)) == (8, 4)
    assert clip_size(ConfigDict(test_dataloader=None, train_dataloader=train)) == (16, 1)
    assert clip_size(Config({'test_dataloader': {'dataset': {'pipeline': [{'type': 'LoadImage'}]}}})) is None


def test_an_image_with_a_text():
    model = tiny_meter({})
    (image, look), (pair, fuse) = example_calls(model, (16, 24))
    alone, both = count_macs(model, look), count_macs(model, fuse)
    assert image == 'one image' and pair == 'one image with a text of full length'
    assert alone['text_encoder'] == alone['cross_modal.layers'] == 0
    assert both['image_encoder'] == alone['image_encoder'] > 0
    assert both['text_encoder'] > 0 and both['cross_modal.layers'] > 0


def test_a_part_gets_what_the_whole_gets():
    seen = []

    class Part(nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape))

    for clip in (None, (4, 1), (1, 5)):
        for _, run in example_calls(Part(), (8, 6), clip):
            with torch.no_grad():
                run()
    assert seen == [(1, 3, 8, 6), (1, 3, 4, 8, 6), (1, 3, 1, 8, 6)]


@pytest.mark.parametrize('name', ['sparse_rcnn/sparse-rcnn', 'queryinst/queryinst'])
def test_detectors_of_learnt_proposals(name):
    _, model = built(f'mmdet::{name}_r50_fpn_1x_coco.py', 'mmdet')
    ((what, run),) = example_calls(model, (64, 96))
    macs = count_macs(model, run)
    # the last layer of each of six stages: 100 proposals of 256 channels to 80 classes
    assert what == 'one image'
    assert [macs[f'roi_head.bbox_head.{stage}.fc_cls'] for stage in range(6)] == 6 * [100 * 256 * 80]
