# A recognizer around VideoCoSwin-T; head and normalisation are Video Swin's
model = dict(
    type='mmaction.Recognizer3D',
    data_preprocessor=dict(
        type='mmaction.ActionDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        format_shape='NCTHW',
    ),
    backbone=dict(type='florence_mm.VideoCoSwin', arch='tiny', drop_path_rate=0.1),
    cls_head=dict(
        type='mmaction.I3DHead',
        num_classes=400,
        in_channels=768,
        loss_cls=dict(type='mmaction.CrossEntropyLoss'),
        dropout_ratio=0.5,
        average_clips='prob',
    ),
)
