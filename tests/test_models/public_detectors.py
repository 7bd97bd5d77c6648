"""Detectors with Dynamic Head: ours, mmdet's, and mmdet's parts under the names of detectron2's public modules."""

import torch
from mmdet.models.dense_heads import ATSSHead
from mmdet.models.necks import FPN, DyHead
from torch import nn

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
