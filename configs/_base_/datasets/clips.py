# The embedded clips of moving digits (python tools/dataset_converters/prepare_clips.py): which of nine motions
classes = ['left', 'right', 'up', 'down', 'growing', 'shrinking', 'clockwise', 'counterclockwise', 'still']
train_pipeline = [
    dict(type='florence_mm.VideoInit'),
    # every second frame of the 16
    dict(type='mmaction.SampleFrames', clip_len=8, frame_interval=2),
    dict(type='florence_mm.VideoDecode'),
    # neither flipped nor cropped: in the mirror left is right
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmaction.PackActionInputs'),
]
test_pipeline = [
    dict(type='florence_mm.VideoInit'),
    dict(type='mmaction.SampleFrames', clip_len=8, frame_interval=2, test_mode=True),
    dict(type='florence_mm.VideoDecode'),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmaction.PackActionInputs'),
]
train_dataloader = dict(
    batch_size=20,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.VideoList',
        data_root='data/clips',
        ann_file='train.txt',
        classes=classes,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=30,
    num_workers=0,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.VideoList',
        data_root='data/clips',
        ann_file='test.txt',
        classes=classes,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='mmaction.AccMetric')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
