# COCO with the Karpathy splits (tools/dataset_converters/prepare_karpathy.py): 113,287 pictures, 5,000, 5,000
image_size = 384
train_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='florence_mm.Resize', scale=(image_size, image_size)),
    dict(type='florence_mm.PackImageText'),
]
test_pipeline = train_pipeline
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.ImageTextManifest',
        ann_file='data/coco/karpathy/train.jsonl',
        data_prefix='data/coco',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.ImageTextManifest',
        ann_file='data/coco/karpathy/val.jsonl',
        data_prefix='data/coco',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='florence_mm.CaptionScores')
test_dataloader = dict(
    batch_size=32,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.ImageTextManifest',
        ann_file='data/coco/karpathy/test.jsonl',
        data_prefix='data/coco',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_evaluator = val_evaluator
