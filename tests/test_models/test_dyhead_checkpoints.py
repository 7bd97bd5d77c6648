"""State dicts of whole detectors in mmdet's and detectron2's layout give the outputs of mmdet's neck and head."""

import torch
from mmdet.models.dense_heads import ATSSHead
from mmdet.models.necks import FPN, DyHead
from torch import nn

from florence_mm.models.checkpoints import load_checkpoint
from florence_mm.models.heads import DynamicHead
from florence_mm.registry import MODELS

CHANNELS, CLASSES, BLOCKS = 32, 6, 2
SWIN = dict(embed_dims=8, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8], window_size=4)
FPN_CFG = dict(
    in_channels=[16, 32, 64],
    out_channels=CHANNELS,
    num_outs=5,
    add_extra_convs='on_output',
    relu_before_extra_convs=True,
)
ATSS = dict(
    num_classes=CLASSES,
    in_channels=CHANNELS,
    feat_channels=CHANNELS,
    pred_kernel_size=1,
    stacked_convs=0,
    anchor_generator=dict(
        type='mmdet.AnchorGenerator', ratios=[1.0], scales=[8], strides=[8, 16, 32, 64, 128], center_offset=0.5
    ),
    bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]),
    loss_cls=dict(type='mmdet.FocalLoss', use_sigmoid=True),
    loss_bbox=dict(type='mmdet.GIoULoss'),
    loss_centerness=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True),
)


def scattered(module, seed=0):
    """All parameters at values at which they matter."""
    torch.manual_seed(seed)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.15)
        elif name.endswith('scale'):
            nn.init.uniform_(parameter, 0.5, 2)
        else:
            nn.init.uniform_(parameter, -0.5, 0.5) if 'bias' in name else nn.init.uniform_(parameter, 0.5, 1.5)
    return module.eval()


def our_detector():
    return MODELS.build(
        dict(
            type='mmdet.ATSS',
            data_preprocessor=dict(type='mmdet.DetDataPreprocessor'),
            backbone=dict(
                type='florence_mm.CoSwin',
                arch=SWIN,
                conv_embed=False,
                img_size=128,
                out_indices=(1, 2, 3),
                pad_small_map=True,
            ),
            neck=dict(type='mmdet.FPN', **FPN_CFG),
            bbox_head=dict(
                type='florence_mm.DynamicHead',
                num_classes=CLASSES,
                in_channels=CHANNELS,
                feat_channels=CHANNELS,
                num_blocks=BLOCKS,
                offset_mode='legacy',
            ),
        )
    ).eval()


def mmdet_detector():
    return MODELS.build(
        dict(
            type='mmdet.ATSS',
            data_preprocessor=dict(type='mmdet.DetDataPreprocessor'),
            backbone=dict(type='mmdet.SwinTransformer', out_indices=(1, 2, 3), **SWIN),
            neck=[
                dict(type='mmdet.FPN', **FPN_CFG),
                dict(type='mmdet.DyHead', in_channels=CHANNELS, out_channels=CHANNELS, num_blocks=BLOCKS),
            ],
            bbox_head=dict(type='mmdet.ATSSHead', **ATSS),
        )
    )


def picture():
    torch.manual_seed(3)
    return torch.randn(2, 3, 96, 160)


def test_mmdet_detector(tmp_path):
    peer, ours = scattered(mmdet_detector()), our_detector()
    torch.save({'meta': {'epoch': 24}, 'state_dict': peer.state_dict()}, tmp_path / 'atss.pth')
    report = load_checkpoint(ours, tmp_path / 'atss.pth', strict=True)
    assert report.format == 'mmdet DyHead' and not report.unexpected
    with torch.no_grad():
        got, wanted = (model.double()(picture().double()) for model in (ours, peer))
    assert len(got) == 3 and len(got[0]) == 5
    torch.testing.assert_close(got, wanted, atol=1e-10, rtol=1e-10)
    assert min(level.std() for level in got[0]) > 0.01
    assert not ours.bbox_head.blocks[1].mid.bias.any()


def test_prefix_takes_the_head_or_the_backbone_alone(tmp_path):
    peer = scattered(mmdet_detector())
    torch.save(peer.state_dict(), tmp_path / 'atss.pth')
    ours = our_detector()
    head = load_checkpoint(ours.bbox_head, tmp_path / 'atss.pth', prefix='bbox_head', strict=True)
    assert head.skipped['neck.lateral_convs.0.conv.weight'] == 'not under bbox_head.'
    load_checkpoint(ours.backbone, tmp_path / 'atss.pth', prefix='backbone', strict=True)
    torch.manual_seed(3)
    feats = [torch.randn(1, CHANNELS, *size) for size in ((16, 16), (8, 8), (4, 4), (2, 2), (1, 1))]
    with torch.no_grad():
        wanted = peer.bbox_head(peer.neck[1](feats))
        torch.testing.assert_close(ours.bbox_head(feats), wanted, atol=1e-4, rtol=1e-4)


def test_backbones_other_than_swin_keep_mmdets_names(tmp_path):
    neck = scattered(DyHead(CHANNELS, CHANNELS, num_blocks=1))
    state = {f'neck.1.{key}': value for key, value in neck.state_dict().items()}
    torch.save({**state, 'backbone.conv1.weight': torch.ones(4, 3, 7, 7)}, tmp_path / 'resnet.pth')
    detector = nn.Module()
    detector.backbone = nn.Module()
    detector.backbone.conv1 = nn.Conv2d(3, 4, 7, bias=False)
    detector.bbox_head = DynamicHead(CLASSES, CHANNELS, CHANNELS, num_blocks=1, offset_mode='legacy')
    report = load_checkpoint(detector, tmp_path / 'resnet.pth')
    assert 'backbone.conv1.weight' in report.loaded and detector.backbone.conv1.weight.eq(1).all()
    assert {key.split('.')[1] for key in report.missing} == {'atss_cls', 'atss_reg', 'atss_centerness', 'scales'}


# --- detectron2 -----------------------------------------------------------------------------------------------------

# detectron2's names of mmdet's parts, as the public modules have them
DETECTRON2 = {
    'spatial_conv_high': 'DyConv.0',
    'spatial_conv_mid': 'DyConv.1',
    'spatial_conv_low': 'DyConv.2',
    '.norm.': '.bn.',
    'spatial_conv_offset': 'offset',
    'scale_attn_module.1': 'AttnConv.1',
    'task_attn_module.conv1.conv': 'relu.fc.0',
    'task_attn_module.conv2.conv': 'relu.fc.2',
    'atss_cls': 'cls_logits',
    'atss_reg': 'bbox_pred',
    'atss_centerness': 'centerness',
}


def peer_with_biases():
    """mmdet's neck and head, whose deformable convolutions have the bias that detectron2's have."""
    fpn, dyhead = FPN(**FPN_CFG), DyHead(CHANNELS, CHANNELS, num_blocks=BLOCKS)
    for name, module in dyhead.named_modules():
        if name.endswith(('high.conv', 'mid.conv', 'low.conv')):
            module.bias = nn.Parameter(torch.zeros(CHANNELS))
    head = ATSSHead(**ATSS)
    return [scattered(module, seed) for seed, module in enumerate((fpn, dyhead, head))]


def in_detectron2_layout(backbone, fpn, dyhead, head):
    state = {}
    for key, value in backbone.state_dict().items():
        key = key.replace('norm.', 'norm3.') if key.startswith('norm.') else key
        state[f'backbone.backbone.bottom_up.{key}'] = value
    state['backbone.backbone.bottom_up.layers.0.blocks.0.attn.relative_position_index'] = torch.zeros(16, 16)
    for i in range(3):
        for kind in ('weight', 'bias'):
            state[f'backbone.backbone.fpn_lateral{i + 3}.{kind}'] = getattr(fpn.lateral_convs[i].conv, kind)
            state[f'backbone.backbone.fpn_output{i + 3}.{kind}'] = getattr(fpn.fpn_convs[i].conv, kind)
    for i, name in ((3, 'p6'), (4, 'p7')):
        for kind in ('weight', 'bias'):
            state[f'backbone.backbone.top_block.{name}.{kind}'] = getattr(fpn.fpn_convs[i].conv, kind)
    for key, value in dyhead.state_dict().items():
        for ours, theirs in DETECTRON2.items():
            key = key.replace(ours, theirs)
        value = value.flatten(1) if '.relu.fc.' in key and key.endswith('weight') else value
        state['backbone.' + key.replace('dyhead_blocks', 'dyhead_tower')] = value
    for key, value in head.state_dict().items():
        for ours, theirs in DETECTRON2.items():
            key = key.replace(ours, theirs)
        state['head.' + key] = value.reshape(1) if key.endswith('.scale') else value
    state['pixel_mean'] = state['pixel_std'] = torch.ones(3, 1, 1)
    state['head.anchor_generator.cell_anchors.0'] = torch.ones(1, 4)
    return state


def test_detectron2_detector(tmp_path):
    backbone = scattered(our_detector().backbone, 7)
    fpn, dyhead, head = peer_with_biases()
    state = in_detectron2_layout(backbone, fpn, dyhead, head)
    assert state['backbone.dyhead_tower.1.DyConv.0.conv.bias'].any()
    torch.save({'model': {key: value.detach() for key, value in state.items()}}, tmp_path / 'dyhead.pth')
    ours = our_detector()
    report = load_checkpoint(ours, tmp_path / 'dyhead.pth', strict=True)
    assert report.format == 'DyHead' and not report.unexpected and not report.missing
    assert report.skipped['pixel_mean'] == 'part of the data preprocessor or the anchors'
    assert set(report.skipped.values()) == {report.skipped['pixel_mean'], 'computed by the model'}
    with torch.no_grad():
        wanted = head(dyhead(fpn(backbone(picture()))))
        torch.testing.assert_close(ours(picture()), wanted, atol=1e-4, rtol=1e-4)
        # the bias before the group norm is no redundancy: without it the outputs differ
        for block in ours.bbox_head.blocks:
            for part in (block.high, block.mid, block.low):
                part.bias.zero_()
        assert (ours(picture())[0][0] - wanted[0][0]).abs().max() > 1e-3


def test_detectron2_resnet_is_listed_as_left_out(tmp_path):
    state = in_detectron2_layout(our_detector().backbone, *peer_with_biases())
    state = {key: value.detach() for key, value in state.items() if 'bottom_up' not in key}
    state['backbone.backbone.bottom_up.stem.conv1.weight'] = torch.ones(4, 3, 7, 7)
    torch.save({'model': state}, tmp_path / 'r50.pth')
    report = load_checkpoint(our_detector(), tmp_path / 'r50.pth', allow_missing=['backbone'])
    assert report.skipped['backbone.backbone.bottom_up.stem.conv1.weight'] == 'of a backbone other than Swin'
    assert all(key.startswith('backbone.') for key in report.missing)


def test_our_own_layout_is_read_as_it_is(tmp_path):
    source, target = scattered(our_detector()), our_detector()
    torch.save(source.state_dict(), tmp_path / 'own.pth')
    assert load_checkpoint(target, tmp_path / 'own.pth', strict=True).format == 'florence_mm'
    with torch.no_grad():
        torch.testing.assert_close(target(picture()), source(picture()), rtol=0, atol=0)
