"""What learns in a zero-shot detector, one backbone for both parts, and options that are refused."""

import runpy
from pathlib import Path

import pytest
import torch
from mmengine.structures import InstanceData
from torch import nn

from florence_mm.models.detectors import ZeroShotDetector
from florence_mm.registry import MODELS

world = runpy.run_path(str(Path(__file__).parent / 'coloured_boxes.py'))
build, picture, samples = world['zero_shot_detector'], world['picture'], world['samples']
RectangleFinder = world['RectangleFinder']
STREET = {'red': (4, 8, 20, 24), 'green': (30, 2, 40, 40), 'blue': (44, 20, 60, 28)}


def test_training_knows_one_class_and_leaves_samples_alone():
    model = build().train()
    image = picture((48, 64), **STREET)
    batch = samples(image, annotated_labels=torch.tensor([3, 7]))
    batch[0].gt_instances = InstanceData(bboxes=torch.rand(2, 4), labels=torch.tensor([3, 7]))
    losses = model(image[None].float(), batch, mode='loss')
    assert set(losses) == {'loss_bbox'}
    seen = model.detector.seen[0]
    assert seen.gt_instances.labels.tolist() == [0, 0]
    assert seen.get('annotated_labels') is None
    assert seen.gt_instances.bboxes.equal(batch[0].gt_instances.bboxes)
    assert batch[0].gt_instances.labels.tolist() == [3, 7]
    assert batch[0].annotated_labels.tolist() == [3, 7]


class Backbone(nn.Module):
    """Three levels, with batch statistics and dropout, which must not act."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 8, 1), nn.BatchNorm2d(8), nn.Dropout(0.5))

    def forward(self, x):
        x = self.stem(x)
        return x, x[..., ::2, ::2], x[..., ::4, ::4]


def atss():
    return MODELS.build(
        {
            'type': 'mmdet.ATSS',
            'backbone': {'type': 'florence_mm.CoSwin', 'arch': 'micro', 'out_indices': (0, 1, 2)},
            'neck': {'type': 'mmdet.FPN', 'in_channels': [8] * 3, 'out_channels': 8, 'num_outs': 3},
            'bbox_head': {
                'type': 'mmdet.ATSSHead',
                'num_classes': 1,
                'in_channels': 8,
                'feat_channels': 8,
                'stacked_convs': 1,
                'norm_cfg': None,
                'anchor_generator': {
                    'type': 'mmdet.AnchorGenerator',
                    'ratios': [1.0],
                    'octave_base_scale': 8,
                    'scales_per_octave': 1,
                    'strides': [8, 16, 32],
                },
                'bbox_coder': {'type': 'mmdet.DeltaXYWHBBoxCoder'},
                'loss_cls': {'type': 'mmdet.FocalLoss'},
                'loss_bbox': {'type': 'mmdet.GIoULoss'},
                'loss_centerness': {'type': 'mmdet.CrossEntropyLoss', 'use_sigmoid': True},
            },
            'train_cfg': {
                'assigner': {'type': 'mmdet.ATSSAssigner', 'topk': 9},
                'allowed_border': -1,
                'pos_weight': -1,
            },
        }
    )


@pytest.mark.parametrize('frozen', [True, False])
def test_a_frozen_backbone_stays_as_it_is(frozen):
    torch.manual_seed(0)
    detector = atss()
    detector.backbone = Backbone()
    model = build(detector=detector, frozen_backbone=frozen).train()
    image = torch.randint(0, 256, (3, 64, 64)).byte()
    batch = samples(image)
    batch[0].gt_instances = InstanceData(bboxes=torch.tensor([[8.0, 8, 40, 40]]), labels=torch.tensor([5]))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.01)
    data = model.data_preprocessor({'inputs': [image], 'data_samples': batch}, True)
    losses = model(**data, mode='loss')
    sum(sum(value) if isinstance(value, list) else value for value in losses.values()).backward()
    optimizer.step()
    moved = {key.split('.')[1] for key, value in model.state_dict().items() if not value.equal(before[key])}
    assert ('backbone' in moved) is not frozen
    assert 'neck' in moved and 'bbox_head' in moved
    assert not any(key.startswith('classifier') for key, v in model.state_dict().items() if not v.equal(before[key]))
    assert model.detector.neck.training and not model.classifier.training
    assert not any(p.requires_grad for p in model.classifier.parameters())
    assert model.detector.backbone.training is not frozen
    if frozen:
        assert all(p.grad is None for p in model.detector.backbone.parameters())
        again = model(**data, mode='tensor')[0][0]
        torch.testing.assert_close(again, model(**data, mode='tensor')[0][0])  # no dropout


def test_a_shared_backbone_is_one_module_of_one_checkpoint(tmp_path):
    from florence_mm.models.text import CLIPTextTower
    from florence_mm.models.tokenizers import CLIPTokenizer

    text = {'embed_dims': 16, 'num_layers': 1, 'num_heads': 2}
    towers = {
        'type': 'florence_mm.UniCL',
        'text_encoder': CLIPTextTower(text, context_length=12, vocab_size=600),
        'tokenizer': CLIPTokenizer(context_length=12, vocab_size=600),
        'embed_dims': 8,
    }
    encoder = {'type': 'florence_mm.CoSwin', 'arch': 'micro'}
    torch.manual_seed(1)
    pretrained = MODELS.build({**towers, 'image_encoder': encoder})
    file = tmp_path / 'towers.pth'
    torch.save(pretrained.state_dict(), file)
    init = {'type': 'florence_mm.Pretrained', 'checkpoint': str(file)}
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    detector = {
        'type': 'mmdet.RetinaNet',
        'data_preprocessor': {'type': 'mmdet.DetDataPreprocessor', 'mean': mean, 'std': std},
        'backbone': {**encoder, 'out_indices': (0, 1, 2), 'init_cfg': {**init, 'prefix': 'image_encoder.'}},
        'neck': {'type': 'mmdet.FPN', 'in_channels': [32, 64, 128], 'out_channels': 8, 'num_outs': 5},
        'bbox_head': {'type': 'mmdet.RetinaHead', 'num_classes': 1, 'in_channels': 8, 'feat_channels': 8},
    }
    model = ZeroShotDetector(detector, {**towers, 'init_cfg': init}, region='feature')
    model.init_weights()
    assert model.shares_backbone and not any(p.requires_grad for p in model.detector.backbone.parameters())
    image = torch.rand(2, 3, 64, 64)
    expected = pretrained.eval().extract_image_feat(image)
    torch.testing.assert_close(model.eval().classifier.extract_image_feat(image), expected)
    # the box of the whole picture has the feature of the picture
    maps = model.detector.backbone(image)[-1]
    whole = torch.tensor([[0.0, 0, 64, 64]])
    torch.testing.assert_close(model._map_features(maps[1], whole, (8.0, 8.0), (64, 64))[0], expected[1])
    with torch.device('meta'):
        assert ZeroShotDetector(detector, {**towers, 'init_cfg': init}).shares_backbone
    with pytest.raises(ValueError, match='set frozen_backbone=True'):
        ZeroShotDetector(detector, towers, frozen_backbone=False)
    other = {**detector, 'data_preprocessor': {**detector['data_preprocessor'], 'mean': [0.0] * 3}}
    with pytest.raises(ValueError, match='give both data preprocessors the same numbers'):
        ZeroShotDetector(other, towers)
    short = {**detector, 'backbone': {**encoder, 'out_indices': (0, 1)}}
    with pytest.raises(ValueError, match='ends at stage 1 of out_indices'):
        ZeroShotDetector(short, towers)


@pytest.mark.parametrize(
    ('kwargs', 'sentence'),
    [
        ({'region': 'roi'}, "use 'crop' or 'feature'"),
        ({'region': 'feature'}, 'leave image_encoder out'),
        ({'proposal_weight': 1.5}, r'give 0 \(class alone\) to 1'),
        ({'context': ()}, 'one or more factors'),
        ({'max_per_img': 0}, 'max_per_img is 0'),
        ({'score_thr': -0.1}, 'score_thr is -0.1; give 0 to below 1'),
        ({'score_thr': 1.0}, 'score_thr is 1.0; give 0 to below 1'),
        ({'nms_iou': -0.1}, 'nms_iou is -0.1; give 0 .* to 1'),
        ({'nms_iou': 50}, 'nms_iou is 50; give 0 .* to 1'),
        ({'crop_size': 0}, 'crop_size is 0; give a side or'),
        ({'crop_size': 8.0}, r'crop_size is 8.0; give a side or \(height, width\)'),
        ({'crop_size': (8, 0)}, r'crop_size is \(8, 0\)'),
        ({'crop_size': (8, 8, 8)}, r'crop_size is \(8, 8, 8\)'),
        ({'crop_size': True}, 'crop_size is True'),
    ],
)
def test_unusable_options_are_named(kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(**kwargs)


def test_the_ends_of_the_ranges_are_usable():
    model = build(score_thr=0, nms_iou=1, crop_size=[8, 16], proposal_weight=1)
    assert (model.score_thr, model.nms_iou, model.crop_size) == (0, 1, (8, 16))
    assert build(nms_iou=0, crop_size=4).crop_size == (4, 4)


def test_a_detector_of_several_classes_is_refused():
    detector = atss()
    detector.bbox_head.num_classes = 80
    with pytest.raises(ValueError, match='has 80 classes; proposals need num_classes=1'):
        build(detector=detector)
    # two stages, and a cascade of heads
    cascade = RectangleFinder()
    cascade.roi_head, head = nn.Module(), nn.Linear(1, 1)
    for heads in (head, nn.ModuleList([nn.Linear(1, 1), head])):
        cascade.roi_head.bbox_head, head.num_classes = heads, 80
        with pytest.raises(ValueError, match='has 80 classes; proposals need num_classes=1'):
            build(detector=cascade)
        head.num_classes = 1
        build(detector=cascade)
