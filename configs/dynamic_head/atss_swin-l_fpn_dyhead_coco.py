# mmdet's Dynamic Head on Swin-L with windows of 12 tokens: python tools/test.py CONFIG CHECKPOINT
_base_ = './atss_swin-t_fpn_dyhead_coco.py'

model = dict(
    backbone=dict(arch='large', img_size=384, window_size=12),
    neck=dict(in_channels=[384, 768, 1536], relu_before_extra_convs=False),
)
