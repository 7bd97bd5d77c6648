# Image-text-label pairs from a manifest (docs/data.md), a class-labelled folder for zero-shot validation
image_size = 224
train_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='florence_mm.RandomResizedCrop', scale=image_size, crop_ratio_range=(0.5, 1.0)),
    dict(type='mmcv.RandomFlip', prob=0.5),
    dict(type='florence_mm.RandomPrompt', templates='imagenet'),
    dict(type='florence_mm.PackImageText'),
]
# the public UniCL code's: resize by 256/224, centre crop, by Pillow, as published weights were evaluated
test_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(
        type='mmpretrain.ResizeEdge',
        scale=image_size * 256 // 224,
        edge='short',
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='mmpretrain.CenterCrop', crop_size=image_size),
    dict(type='florence_mm.PackImageText'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.ImageTextManifest',
        ann_file='data/pretrain/train.parquet',
        skip_bad=dict(max=10_000),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.ImageFolderText',
        data_root='data/imagenet/val',
        class_names='imagenet1k',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='florence_mm.ZeroShotAccuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
