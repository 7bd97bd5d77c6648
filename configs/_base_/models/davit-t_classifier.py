# DaViT-T, an image classifier as in DaViT's code: the norm is one of pooled features
model = dict(
    type='mmpretrain.ImageClassifier',
    data_preprocessor=dict(
        type='mmpretrain.ClsDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        num_classes=1000,
    ),
    backbone=dict(
        type='florence_mm.FlorenceDaViT',
        arch='tiny',
        window_size=7,
        merge_kernel=2,
        channel_scale='channels',
        out_norm='pooled',
    ),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=1000,
        in_channels=768,
        loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)
