# mmdet's Dynamic Head on the ResNet-50 of Caffe: python tools/test.py CONFIG CHECKPOINT
_base_ = './atss_swin-t_fpn_dyhead_coco.py'

model = dict(
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(
        _delete_=True,
        type='mmdet.ResNet',
        depth=50,
        num_stages=4,
        out_indices=(1, 2, 3),
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='caffe',
    ),
    neck=dict(in_channels=[512, 1024, 2048], relu_before_extra_convs=False),
)
# its base makes a Swin small
smoke = dict(_delete_=True)
