# Digits cut out of the scenes of large digits, each with its colour and its name (docs/meter.md, "The embedded task")
# digits anywhere in the crop, as they are anywhere in a scene
train_pipeline = [
    dict(type='florence_mm.LoadImage'),
    dict(type='florence_mm.RandomAffineImage', max_rotate=0.0, max_translate=0.25, scale=(0.77, 1.3)),
    dict(type='florence_mm.PackImageText'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.ImageTextManifest',
        ann_file='data/large_digit_crops/train_captions.jsonl',
        pipeline=train_pipeline,
    ),
)
