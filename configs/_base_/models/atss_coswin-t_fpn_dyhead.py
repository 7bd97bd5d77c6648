# Dynamic Head on CoSwin-T. Anchors, box coder and losses are the head's defaults, the published ones
model = dict(
    type='mmdet.ATSS',
    data_preprocessor=dict(
        type='mmdet.DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
        non_blocking=True,
    ),
    backbone=dict(type='florence_mm.CoSwin', arch='tiny', out_indices=(1, 2, 3), drop_path_rate=0.2),
    neck=dict(
        type='mmdet.FPN',
        in_channels=[192, 384, 768],
        out_channels=256,
        num_outs=5,
        add_extra_convs='on_output',
        relu_before_extra_convs=True,  # P7 = conv(relu(P6)), as in detectron2
    ),
    bbox_head=dict(type='florence_mm.DynamicHead', num_classes=80),
    train_cfg=dict(
        assigner=dict(type='mmdet.ATSSAssigner', topk=9, iou_calculator=dict(type='mmdet.BboxOverlaps2D')),
        allowed_border=-1,
        pos_weight=-1,
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.6),
        max_per_img=100,
    ),
)
