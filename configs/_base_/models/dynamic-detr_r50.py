# Dynamic DETR on ResNet-50: a pyramid of five levels, six blocks of encoder, six stages of decoder, 300 queries
model = dict(
    type='florence_mm.DynamicDETR',
    data_preprocessor=dict(
        type='mmdet.DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
        non_blocking=True,
    ),
    backbone=dict(
        type='mmdet.ResNet',
        depth=50,
        num_stages=4,
        out_indices=(1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    neck=dict(
        type='mmdet.FPN',
        in_channels=[512, 1024, 2048],
        out_channels=256,
        num_outs=5,
        add_extra_convs='on_output',
        relu_before_extra_convs=True,  # P7 = conv(relu(P6)), as in detectron2
    ),
    encoder=dict(type='florence_mm.DynamicDETREncoder'),
    bbox_head=dict(type='florence_mm.DynamicDETRHead', num_classes=80),
    test_cfg=dict(max_per_img=100),
)
