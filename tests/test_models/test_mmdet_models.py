"""mmdet's own detectors, from its own configs, learn and predict on an installation without compiled mmcv."""

import pytest
import torch
from mmengine.hub import get_config
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from florence_mm.ops.boxes import box_iou

SIZE = (64, 96)
CHANNELS = 32
# fmt: off
SMALLER = {
    'model.backbone.depth': 18, 'model.backbone.init_cfg': None, 'model.backbone.frozen_stages': -1,
    'model.neck.out_channels': CHANNELS,
}
ONE_STAGE = {
    'model.bbox_head.in_channels': CHANNELS, 'model.bbox_head.feat_channels': CHANNELS,
    'model.bbox_head.stacked_convs': 1, 'model.test_cfg.score_thr': 0.0,
}
TWO_STAGES = {
    'model.rpn_head.in_channels': CHANNELS, 'model.rpn_head.feat_channels': CHANNELS,
    'model.roi_head.bbox_roi_extractor.out_channels': CHANNELS, 'model.roi_head.bbox_head.in_channels': CHANNELS,
    'model.roi_head.bbox_head.fc_out_channels': 64, 'model.test_cfg.rcnn.score_thr': 0.0,
}
CONFIGS = {
    'atss/atss_r50_fpn_1x_coco.py': {**ONE_STAGE, 'model.neck.in_channels': [64, 128, 256, 512]},
    'retinanet/retinanet_r50_fpn_1x_coco.py': {**ONE_STAGE, 'model.neck.in_channels': [64, 128, 256, 512]},
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py': {**TWO_STAGES, 'model.neck.in_channels': [64, 128, 256, 512]},
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py': {
        **TWO_STAGES, 'model.neck.in_channels': [64, 128, 256, 512],
        'model.roi_head.mask_roi_extractor.out_channels': CHANNELS, 'model.roi_head.mask_head.in_channels': CHANNELS,
        'model.roi_head.mask_head.conv_out_channels': CHANNELS, 'model.roi_head.mask_head.num_convs': 1,
    },
    'dyhead/atss_r50_fpn_dyhead_1x_coco.py': {
        **ONE_STAGE, 'model.neck.0.in_channels': [64, 128, 256, 512], 'model.neck.0.out_channels': CHANNELS,
        'model.neck.1.in_channels': CHANNELS, 'model.neck.1.out_channels': CHANNELS, 'model.neck.1.num_blocks': 1,
    },
}
# fmt: on


def build(name):
    """The detector of an mmdet config, made smaller by options."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    config = get_config(f'mmdet::{name}')
    options = {**SMALLER, **CONFIGS[name]}
    if isinstance(config.model.neck, list):
        options.pop('model.neck.out_channels')
    config.merge_from_dict(options)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
        model.init_weights()
    return model


def batch():
    """Two pictures with a bright rectangle each, as a loader of mmdet gives them."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for x1, y1, x2, y2 in ((8, 8, 40, 40), (30, 10, 80, 50)):
        image = torch.randint(0, 60, (3, *SIZE), generator=generator, dtype=torch.uint8)
        image[:, y1:y2, x1:x2] += 150
        mask = torch.zeros(1, *SIZE, dtype=torch.uint8)
        mask[:, y1:y2, x1:x2] = 1
        sample = DetDataSample(
            metainfo=dict(img_shape=SIZE, ori_shape=SIZE, batch_input_shape=SIZE, scale_factor=(1.0, 1.0), img_id=0)
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[x1, y1, x2, y2]], dtype=torch.float32),
            labels=torch.tensor([3]),
            masks=BitmapMasks(mask.numpy(), *SIZE),
        )
        inputs.append(image)
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize('name', CONFIGS)
def test_learns_and_predicts(name):
    model = build(name)
    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.002))
    before = {key: p.detach().clone() for key, p in model.named_parameters() if p.requires_grad}
    totals = []
    for _ in range(3):
        torch.manual_seed(0)  # the sampling of proposals
        losses = model.train_step(batch(), optimizer)
        totals.append(losses['loss'].item())
    moved = {key for key, p in model.named_parameters() if key in before and not torch.equal(p, before[key])}
    # gradients reach every part, down to the first layer
    assert 'backbone.conv1.weight' in moved
    assert {key.partition('.')[0] for key in moved} == {key.partition('.')[0] for key in before}
    if 'dyhead' in name:
        deformable = {key for key in before if 'spatial_conv' in key and '.norm.' not in key}
        assert deformable and deformable <= moved
    assert totals[-1] < totals[0]

    with torch.no_grad():
        results = model.eval().test_step(batch())
    height, width = SIZE
    for result in results:
        found = result.pred_instances
        assert 0 < len(found) <= 100
        assert (found.bboxes >= 0).all()
        assert (found.bboxes <= torch.tensor([width, height, width, height])).all()
        assert (found.scores.diff() <= 0).all()
        same = found.labels[:, None] == found.labels
        threshold = model.test_cfg.get('rcnn', model.test_cfg).nms.iou_threshold
        overlap = box_iou(found.bboxes, found.bboxes).fill_diagonal_(0)
        assert (overlap[same] <= threshold + 1e-5).all()
        if 'mask_rcnn' in name:
            assert found.masks.shape == (len(found), height, width)
