# The embedded scenes of digits (python tools/dataset_converters/prepare_scenes.py)
meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'annotated_labels')
train_pipeline = [
    dict(type='mmdet.LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    # changes no pixel; heads ask for the scale_factor that it notes
    dict(type='mmdet.Resize', scale_factor=1.0, keep_ratio=True),
    # not flipped: a digit in the mirror is none
    dict(type='mmdet.PackDetInputs', meta_keys=meta_keys),
]
test_pipeline = train_pipeline
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.DetectionDataset',
        data_root='data/scenes',
        ann_file='annotations/train.json',
        data_prefix=dict(img='train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=20,
    num_workers=0,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.DetectionDataset',
        data_root='data/scenes',
        ann_file='annotations/test.json',
        data_prefix=dict(img='test'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='florence_mm.DetectionMetric')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
