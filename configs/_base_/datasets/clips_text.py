# The embedded clips with captions, "a seven moving to the left" (python tools/dataset_converters/prepare_clips.py)
train_pipeline = [
    dict(type='florence_mm.VideoInit'),
    # every second frame of the 16
    dict(type='mmaction.SampleFrames', clip_len=8, frame_interval=2),
    dict(type='florence_mm.VideoDecode'),
    # neither flipped nor cropped: in the mirror left is right
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='florence_mm.PackVideoText'),
]
test_pipeline = [
    dict(type='florence_mm.VideoInit'),
    dict(type='mmaction.SampleFrames', clip_len=8, frame_interval=2, test_mode=True),
    dict(type='florence_mm.VideoDecode'),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='florence_mm.PackVideoText'),
]
train_dataloader = dict(
    batch_size=20,
    num_workers=1,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.ImageTextManifest',
        ann_file='data/clips/train.jsonl',
        columns=dict(image='video'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=30,
    num_workers=0,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.ImageTextManifest',
        ann_file='data/clips/test.jsonl',
        columns=dict(image='video'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
# equal captions are one query, for which all of their videos are right
val_evaluator = dict(type='florence_mm.ImageTextRecall', modality='video')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
