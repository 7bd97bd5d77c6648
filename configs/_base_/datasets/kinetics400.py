# Kinetics-400 in videos, 32 frames of every second one, 224 pixels: the pipelines of Video Swin
image_size = 224
train_pipeline = [
    dict(type='florence_mm.VideoInit'),
    dict(type='mmaction.SampleFrames', clip_len=32, frame_interval=2),
    dict(type='florence_mm.VideoDecode'),
    dict(type='mmaction.Resize', scale=(-1, image_size * 256 // 224)),
    dict(type='mmaction.RandomResizedCrop'),
    dict(type='mmaction.Resize', scale=(image_size, image_size), keep_ratio=False),
    dict(type='mmaction.Flip', flip_ratio=0.5),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmaction.PackActionInputs'),
]
# one view, while the model is trained
val_pipeline = [
    dict(type='florence_mm.VideoInit'),
    dict(type='mmaction.SampleFrames', clip_len=32, frame_interval=2, test_mode=True),
    dict(type='florence_mm.VideoDecode'),
    dict(type='mmaction.Resize', scale=(-1, image_size * 256 // 224)),
    dict(type='mmaction.CenterCrop', crop_size=image_size),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmaction.PackActionInputs'),
]
# 4 clips x 3 crops
test_pipeline = [
    dict(type='florence_mm.VideoInit'),
    dict(type='mmaction.SampleFrames', clip_len=32, frame_interval=2, num_clips=4, test_mode=True),
    dict(type='florence_mm.VideoDecode'),
    dict(type='mmaction.Resize', scale=(-1, image_size)),
    dict(type='mmaction.ThreeCrop', crop_size=image_size),
    dict(type='mmaction.FormatShape', input_format='NCTHW'),
    dict(type='mmaction.PackActionInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=True),
    dataset=dict(
        type='florence_mm.VideoList',
        data_root='data/kinetics400',
        ann_file='kinetics400_train_list_videos.txt',
        data_prefix=dict(video='videos_train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.VideoList',
        data_root='data/kinetics400',
        ann_file='kinetics400_val_list_videos.txt',
        data_prefix=dict(video='videos_val'),
        test_mode=True,
        pipeline=val_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='florence_mm.ResumableSampler', shuffle=False, round_up=False),
    dataset=dict(
        type='florence_mm.VideoList',
        data_root='data/kinetics400',
        ann_file='kinetics400_val_list_videos.txt',
        data_prefix=dict(video='videos_val'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(type='mmaction.AccMetric')
test_evaluator = val_evaluator
# under --smoke clips are short and small
smoke = dict(
    image_size=64,
    train_dataloader=dict(dataset=dict(pipeline=dict(SampleFrames=dict(clip_len=4)))),
    val_dataloader=dict(dataset=dict(pipeline=dict(SampleFrames=dict(clip_len=4)))),
    test_dataloader=dict(dataset=dict(pipeline=dict(SampleFrames=dict(clip_len=4)))),
)
