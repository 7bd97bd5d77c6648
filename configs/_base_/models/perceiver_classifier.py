# Perceiver IO with Fourier features, an image classifier: the query of the class reads the latents
model = dict(
    type='mmpretrain.ImageClassifier',
    data_preprocessor=dict(
        type='mmpretrain.ClsDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        num_classes=1000,
    ),
    backbone=dict(type='florence_mm.Perceiver', arch='imagenet', inputs='fourier'),
    neck=dict(type='florence_mm.PerceiverDecoder', in_channels=1024),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=1000,
        in_channels=1024,
        loss=dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)
# under --smoke all is small
smoke = dict(
    model=dict(
        backbone=dict(
            arch=dict(_delete_=True, num_latents=8, embed_dims=32, depth=1, num_blocks=2, num_heads=4), num_bands=4
        ),
        neck=dict(in_channels=32),
        head=dict(in_channels=32),
    ),
)
